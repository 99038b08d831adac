import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.metrics import alignment, effective_rank, modality_gap, uniformity

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(6, 4)), RNG.normal(size=(6, 4))


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_modality_gap_equals_numpy():
    result = modality_gap(A, B[:4])
    vector = unit(A).mean(axis=0) - unit(B[:4]).mean(axis=0)
    np.testing.assert_allclose(result["vector"], vector, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(result["gap"], np.linalg.norm(vector), rtol=1e-5)


def test_modality_gap_of_opposite_points_is_two_and_of_equal_sets_zero():
    np.testing.assert_allclose(modality_gap(np.array([[3.0, 0.0]]), np.array([[-1.0, 0.0]]))["gap"], 2.0, rtol=1e-6)
    assert modality_gap(A, A)["gap"] == 0


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_alignment_equals_loops(power):
    expected = np.mean([np.linalg.norm(a - b) ** power for a, b in zip(unit(A), unit(B), strict=True)])
    np.testing.assert_allclose(alignment(A, B, power=power), expected, rtol=1e-5)
    np.testing.assert_allclose(alignment(B, A, power=power), expected, rtol=1e-5)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_alignment_of_equal_pairs_is_zero_with_a_finite_gradient(power):
    points = jnp.eye(3)  # normalised without rounding
    value, gradient = jax.jit(jax.value_and_grad(lambda a, b: alignment(a, b, power=power)))(points, points)
    assert value == 0
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("t", [0.5, 2.0])
def test_uniformity_equals_loops(t):
    pairs = itertools.combinations(unit(A), 2)
    expected = np.log(np.mean([np.exp(-t * np.sum((x - y) ** 2)) for x, y in pairs]))
    np.testing.assert_allclose(uniformity(A, t=t), expected, rtol=1e-5)


def test_uniformity_of_a_point_and_of_an_axis():
    """A single point has 0; two opposite points have squared distance 4."""
    np.testing.assert_allclose(uniformity(np.ones((3, 2))), 0.0, atol=1e-5)
    np.testing.assert_allclose(uniformity(np.array([[1.0, 0.0], [-5.0, 0.0]]), t=3.0), -12.0, rtol=1e-6)


def test_geometry_is_finite_where_embeddings_are_zero():
    zero = jnp.zeros((3, 2))
    gradients = jax.jit(
        jax.grad(lambda x: uniformity(x) + alignment(x, x[::-1], power=1.0) + modality_gap(x, x + 1)["gap"])
    )
    assert np.isfinite(gradients(zero)).all()


@pytest.mark.parametrize(
    "measure",
    [lambda x: modality_gap(x, A)["gap"], lambda x: alignment(x, A), uniformity, effective_rank],
    ids=["modality_gap", "alignment", "uniformity", "effective_rank"],
)
def test_nan_is_not_swallowed(measure):
    broken = A.copy()
    broken[2, 1] = np.nan
    assert np.isnan(measure(broken))


@pytest.mark.parametrize("center", [False, True])
def test_effective_rank_equals_numpy(center):
    sigma = np.linalg.svd(A - A.mean(axis=0) * center, compute_uv=False)
    p = sigma / sigma.sum()
    np.testing.assert_allclose(effective_rank(A, center=center), np.exp(-np.sum(p * np.log(p))), rtol=1e-4)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_effective_rank_of_equal_directions(rank):
    np.testing.assert_allclose(effective_rank(np.eye(6, 4)[:, :rank] @ np.eye(rank, 4)), rank, rtol=1e-5)


def test_effective_rank_of_nothing_is_zero():
    assert effective_rank(np.zeros((3, 2))) == 0
    np.testing.assert_allclose(effective_rank(np.ones((3, 2)), center=True), 0.0, atol=1e-6)


def test_effective_rank_ignores_scale():
    np.testing.assert_allclose(effective_rank(1e3 * A), effective_rank(A), rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: modality_gap(A, B[:, :3]), r"modality_gap: .*a \(6, 4\), b \(6, 3\)"),
        (lambda: alignment(A, B[:3]), r"alignment: .*a \(6, 4\), b \(3, 4\)"),
        (lambda: uniformity(A[:1]), r"uniformity: x has shape \(1, 4\), expected at least 2 rows"),
        (lambda: effective_rank(A[0]), r"effective_rank: x has shape \(4,\), expected 2 axes"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
