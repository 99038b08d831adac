import io

import numpy as np
import pytest
from PIL import Image

from mmjax.data.prepare._pictures import png_on_white, rasterize

SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="30pt" height="15pt">
<rect width="100%" height="100%" fill="#ff0000"/></svg>"""


def pixels(data):
    picture = Image.open(io.BytesIO(data))
    assert (picture.format, picture.mode) == ("PNG", "RGB")
    return np.asarray(picture)


def test_transparent_is_white_and_half_is_half():
    picture = Image.fromarray(np.array([[[255, 0, 0, 0], [0, 0, 0, 255], [0, 0, 255, 51]]], np.uint8), "RGBA")
    # A fifth of blue over white: 255 * 0.8 = 204 of the other two.
    np.testing.assert_array_equal(pixels(png_on_white(picture)), [[[255, 255, 255], [0, 0, 0], [204, 204, 255]]])


@pytest.mark.parametrize(("mode", "colour"), [("L", 9), ("LA", (9, 255)), ("RGB", (9, 9, 9)), ("P", 0), ("1", 0)])
def test_any_mode_becomes_rgb(mode, colour):
    picture = Image.new(mode, (2, 1), colour)
    if mode == "P":
        picture.putpalette([9, 9, 9])
    expected = 0 if mode == "1" else 9
    np.testing.assert_array_equal(pixels(png_on_white(picture)), np.full((1, 2, 3), expected))


def test_large_pictures_shrink_and_small_ones_stay():
    assert pixels(png_on_white(Image.new("RGB", (40, 10)), size=20)).shape == (5, 20, 3)
    assert pixels(png_on_white(Image.new("RGB", (10, 40)), size=20)).shape == (20, 5, 3)
    assert pixels(png_on_white(Image.new("RGB", (4, 3)), size=20)).shape == (3, 4, 3)


def test_a_vector_graphic_is_drawn_at_the_size(tmp_path):
    pytest.importorskip("resvg_py")
    (tmp_path / "x.svg").write_text(SVG)
    picture = rasterize(tmp_path / "x.svg", size=64)
    assert picture.size == (64, 32)
    assert picture.getpixel((30, 15)) == (255, 0, 0, 255)


def test_a_broken_vector_graphic_is_a_value_error(tmp_path):
    pytest.importorskip("resvg_py")
    (tmp_path / "x.svg").write_text("<svg")
    with pytest.raises(ValueError):
        rasterize(tmp_path / "x.svg", size=64)
