import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.metrics import expected_calibration_error

RNG = np.random.default_rng(0)
PROBS = RNG.dirichlet(np.ones(3), size=40).astype(np.float32)
LABELS = RNG.integers(0, 3, size=40)


@pytest.mark.parametrize("num_bins", [1, 4, 15])
def test_equals_loops(num_bins):
    result = expected_calibration_error(PROBS, LABELS, num_bins=num_bins)
    confidence, right = PROBS.max(axis=1), PROBS.argmax(axis=1) == LABELS
    ece, gaps = 0.0, []
    for b in range(num_bins):
        inside = (confidence > b / num_bins) & (confidence <= (b + 1) / num_bins)
        assert result["count"][b] == inside.sum()
        if not inside.any():
            assert result["accuracy"][b] == result["confidence"][b] == 0
            continue
        np.testing.assert_allclose(result["accuracy"][b], right[inside].mean(), rtol=1e-5)
        np.testing.assert_allclose(result["confidence"][b], confidence[inside].mean(), rtol=1e-5)
        gaps.append(abs(right[inside].mean() - confidence[inside].mean()))
        ece += inside.mean() * gaps[-1]
    np.testing.assert_allclose(result["ece"], ece, rtol=1e-5)
    np.testing.assert_allclose(result["mce"], max(gaps), rtol=1e-5)
    assert jnp.issubdtype(result["count"].dtype, jnp.integer)


def test_a_calibrated_and_an_overconfident_classifier():
    """Confidence 3/4 and right three times of four: 0. Confidence 1 and never right: 1."""
    probs = np.tile([[0.75, 0.25]], (4, 1))
    assert expected_calibration_error(probs, np.array([0, 0, 0, 1]))["ece"] == 0
    certain = expected_calibration_error(np.tile([[0.0, 1.0]], (4, 1)), np.zeros(4, int))
    assert certain["ece"] == certain["mce"] == 1


def test_bins_are_closed_above():
    """Confidence 1/2 belongs to (0, 1/2] of two bins, confidence 1 to the last."""
    counts = expected_calibration_error(np.array([[0.5, 0.5], [1.0, 0.0]]), np.zeros(2, int), num_bins=2)["count"]
    np.testing.assert_array_equal(counts, [1, 1])


def test_the_largest_gap_is_over_bins_that_hold_something():
    """One example, right with confidence 0.9: the 14 empty bins do not count as gaps."""
    result = expected_calibration_error(np.array([[0.9, 0.1]]), np.zeros(1, int))
    np.testing.assert_allclose([result["ece"], result["mce"]], 0.1, rtol=1e-5)


def test_nan_is_not_swallowed():
    assert np.isnan(expected_calibration_error(np.full((2, 3), np.nan), np.zeros(2, int))["ece"])


def test_under_jit():
    compiled = jax.jit(expected_calibration_error, static_argnames="num_bins")(PROBS, LABELS, num_bins=4)
    for name, value in expected_calibration_error(PROBS, LABELS, num_bins=4).items():
        np.testing.assert_allclose(compiled[name], value, rtol=1e-5)


def test_errors():
    with pytest.raises(ValueError, match=r"expected_calibration_error: .*probs \(40, 3\), labels \(39,\)"):
        expected_calibration_error(PROBS, LABELS[1:])
    with pytest.raises(TypeError, match="expected_calibration_error: labels has dtype float32"):
        expected_calibration_error(PROBS, LABELS.astype(np.float32))
