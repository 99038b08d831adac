import numpy as np
import pytest

from mmjax.evaluate.report import joint_projection, plane


def test_projection_is_the_svd_of_both_modalities_and_keeps_distances_of_a_plane():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(7, 2)))[0]
    flat = rng.normal(size=(10, 2))
    both = flat @ basis.T + 3.0
    projection = joint_projection(both[:4], both[4:])
    found = np.concatenate([projection.a, projection.b])
    distances = lambda x: np.linalg.norm(x[:, None] - x[None], axis=-1)  # noqa: E731
    np.testing.assert_allclose(distances(found), distances(flat), atol=1e-9)
    assert sum(projection.explained) == pytest.approx(1.0)
    assert projection.explained[0] >= projection.explained[1]


def test_projection_of_points_that_coincide_is_zero():
    projection = joint_projection(np.ones((2, 3)), np.ones((1, 3)))
    assert projection.explained == (0.0, 0.0)
    assert not projection.a.any()


def test_plane_joins_every_pair():
    a, b = np.zeros((5, 2)), np.arange(10.0).reshape(5, 2)
    svg = plane(a, b)
    assert svg.count("<use") == 10
    assert svg.count("var(--muted)") == 5
