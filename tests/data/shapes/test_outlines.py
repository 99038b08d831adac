import itertools

import numpy as np
import pytest

from mmjax.data.shapes import SHAPES, SIZES
from mmjax.data.shapes.outlines import make_stamp

SIN_36 = 0.587785


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        ("circle", np.pi * 0.98**2),
        ("square", 4 * 0.88**2),
        ("triangle", 1.9),
        ("diamond", 2 * 0.75),
        ("cross", 4 * (1 - 0.7**2)),
        ("star", 5 * 0.45 * SIN_36),
        ("ring", np.pi * (0.98**2 - 0.55**2)),
        # The area inside (u^2 + v^2 - 1)^3 = u^2 v^3 is 3.6620.
        ("heart", 3.6620 / (1.14 * 1.12)),
    ],
)
def test_coverage_is_the_area_of_the_shape(shape, area):
    stamp = make_stamp(shape, 80)
    assert stamp.paint.mean() / 256 * 4 == pytest.approx(area, rel=0.01)
    assert stamp.inside.mean() * 4 == pytest.approx(area, rel=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_stamp_blends_paint_and_ground_to_one(shape):
    stamp = make_stamp(shape, 10)
    assert stamp.paint.shape == stamp.ground.shape == (10, 30)
    np.testing.assert_array_equal(stamp.paint + stamp.ground, np.full((10, 30), 256))
    np.testing.assert_array_equal(stamp.paint[:, 0::3], stamp.paint[:, 2::3])
    np.testing.assert_array_equal(stamp.inside, stamp.paint[:, ::3] >= 128)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_its_own_mirror_image(shape):
    inside = make_stamp(shape, 15).inside
    np.testing.assert_array_equal(inside, inside[:, ::-1])


def test_the_triangle_points_up_and_the_heart_down():
    triangle, heart = make_stamp("triangle", 21).inside, make_stamp("heart", 21).inside
    assert triangle[:10].sum() < triangle[11:].sum()
    assert heart[:10].sum() > heart[11:].sum()


def test_shapes_differ_at_the_smallest_diameter():
    diameter = round(32 * min(SIZES["small"]))
    for one, other in itertools.combinations(SHAPES, 2):
        difference = np.abs(make_stamp(one, diameter).paint.astype(int) - make_stamp(other, diameter).paint)
        assert difference.mean() / 256 > 0.08, (one, other)
