import numpy as np
import pytest

from mmjax.data.shapes import BACKGROUNDS, COLOURS, SHAPES, Placement, Renderer, Thing
from mmjax.data.shapes.outlines import make_stamp


def nearest(palette, colour):
    return min(palette, key=lambda name: np.sum((np.array(palette[name]) - colour) ** 2))


@pytest.mark.parametrize("bits", [0, 2**64 - 1])
@pytest.mark.parametrize("background", BACKGROUNDS)
def test_the_field_is_one_shade_of_its_colour(background, bits):
    image = Renderer(32).image(background, [], bits)
    assert (image.shape, image.dtype) == ((32, 32, 3), np.uint8)
    shift = 15 if bits else -15
    np.testing.assert_array_equal(image, np.broadcast_to(np.array(BACKGROUNDS[background]) + shift, image.shape))


def test_every_shade_of_a_colour_is_nearest_to_that_colour():
    palette = {**COLOURS, **BACKGROUNDS}
    corners = np.array(np.meshgrid(*[[-15, 15]] * 3)).reshape(3, -1).T
    for name, colour in palette.items():
        shades = np.array(colour) + corners
        assert 0 <= shades.min() <= shades.max() <= 255
        assert {nearest(palette, shade) for shade in shades} == {name}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_blends_its_colour_over_the_field(shape):
    bits = 0x123_456  # field 0x456, object 0x123; nibbles from red up
    placement = Placement(Thing("small", "green", shape), 3, 17, 10, 0)
    image = Renderer(32).image("white", [placement], bits).astype(int)

    field = np.array(BACKGROUNDS["white"]) - 15 + 2 * np.array([0x6, 0x5, 0x4])
    colour = np.array(COLOURS["green"]) - 15 + 2 * np.array([0x3, 0x2, 0x1])
    weight = np.zeros((32, 32, 1), int)
    weight[17:27, 3:13, 0] = make_stamp(shape, 10).paint[:, ::3]
    np.testing.assert_array_equal(image, (field * (256 - weight) + colour * weight) // 256)


@pytest.mark.parametrize("front", [0, 1])
def test_the_nearer_object_hides_the_farther(front):
    renderer = Renderer(32)
    things = Thing("large", "red", "square"), Thing("large", "blue", "square")
    placements = [Placement(things[0], 2, 2, 15, front), Placement(things[1], 10, 2, 15, 1 - front)]
    segments = renderer.segmentation(placements)
    assert segments[9, 13] == (2 if front else 1)
    image = renderer.image("grey", placements, 0)
    assert nearest(COLOURS, image[9, 13]) == ("blue" if front else "red")
    assert nearest(COLOURS, image[9, 6]) == "red"
    assert nearest(COLOURS, image[9, 20]) == "blue"


@pytest.mark.parametrize("image_size", [32, 97])
def test_segmentation_marks_each_object_with_its_number(image_size):
    renderer = Renderer(image_size)
    thing = Thing("small", "red", "star")
    placements = [Placement(thing, 0, 0, 9, 0), Placement(thing, 20, 11, 10, 1)]
    segments = renderer.segmentation(placements)
    assert (segments.shape, segments.dtype) == ((image_size, image_size), np.uint8)
    expected = np.zeros_like(segments)
    expected[:9, :9] = make_stamp("star", 9).inside
    expected[11:21, 20:30] = 2 * make_stamp("star", 10).inside
    np.testing.assert_array_equal(segments, expected)


def test_a_picture_belongs_to_the_caller():
    renderer = Renderer(32)
    first = renderer.image("grey", [], 0)
    first[...] = 0
    assert renderer.image("grey", [], 0).min() > 0
