import itertools

import pytest

from mmjax.data.shapes import KINDS, OPPOSITE, Description, Layout, Thing, scene
from mmjax.data.shapes.hashing import mix

THINGS = (Thing("small", "red", "circle"), Thing("large", "blue", "square"))
PAIRS = list(itertools.product(THINGS, repeat=2))
IMAGE_SIZES = (32, 33, 50, 224)


def layouts(description, image_size, *, overlap=0.0, number=300):
    layout = Layout(image_size, overlap=overlap)
    return [layout(description, mix(i)) for i in range(number)]


def box_overlap(one, other):
    width = min(one.x + one.diameter, other.x + other.diameter) - max(one.x, other.x)
    height = min(one.y + one.diameter, other.y + other.diameter) - max(one.y, other.y)
    return max(width, 0) * max(height, 0)


@pytest.mark.parametrize("overlap", [0.0, 0.5])
@pytest.mark.parametrize("image_size", IMAGE_SIZES)
@pytest.mark.parametrize("form", OPPOSITE)
def test_a_pair_stands_in_its_relation_and_inside_the_picture(form, image_size, overlap):
    for things in PAIRS:
        for placements in layouts(Description(form, "grey", things), image_size, overlap=overlap):
            assert tuple(p.thing for p in placements) == things
            for p in placements:
                assert min(p.x, p.y) >= 0
                assert max(p.x, p.y) + p.diameter <= image_size
            (x, y), (other_x, other_y) = (p.centre for p in placements)
            along = {
                "left of": other_x - x,
                "right of": x - other_x,
                "above": other_y - y,
                "below": y - other_y,
            }
            assert along[form] > 0
            across = abs(y - other_y) if form in ("left of", "right of") else abs(x - other_x)
            assert along[form] > 2 * across
            assert sorted(p.depth for p in placements) == [0, 1]


@pytest.mark.parametrize("image_size", IMAGE_SIZES)
def test_things_do_not_overlap_unless_asked(image_size):
    for form, things in itertools.product(OPPOSITE, PAIRS):
        for pair in layouts(Description(form, "grey", things), image_size, number=50):
            assert box_overlap(*pair) == 0


def test_overlap_hides_at_most_its_share_and_both_ways():
    pairs = layouts(Description("left of", "grey", THINGS), 64, overlap=0.5)
    hidden = [one.x + one.diameter - other.x for one, other in pairs]
    assert 0 < max(hidden) <= 0.5 * max(Layout(64).diameters["small"])
    assert {one.depth for one, _ in pairs} == {0, 1}


@pytest.mark.parametrize("image_size", IMAGE_SIZES)
@pytest.mark.parametrize(("form", "number"), [("two", 2), ("three", 3), ("four", 4)])
def test_a_count_has_so_many_things_apart(form, number, image_size):
    for thing in THINGS:
        for placements in layouts(Description(form, "grey", (thing,)), image_size, number=100):
            assert [p.thing for p in placements] == [thing] * number
            assert not any(box_overlap(*two) for two in itertools.combinations(placements, 2))
            for p in placements:
                assert min(p.x, p.y) >= 0
                assert max(p.x, p.y) + p.diameter <= image_size


def test_a_single_thing_reaches_every_place():
    placed = {(p.x, p.y) for (p,) in layouts(Description("one", "grey", THINGS[1:]), 32, number=4000)}
    assert {(0, 0), (0, 18), (18, 0), (18, 18)} <= placed


@pytest.mark.parametrize("image_size", IMAGE_SIZES)
def test_sizes_are_well_apart(image_size):
    diameters = Layout(image_size).diameters
    assert min(diameters["large"]) >= 1.35 * max(diameters["small"])


@pytest.mark.parametrize("kind", KINDS)
def test_scene_says_where_everything_is(kind):
    form = KINDS[kind][-1]
    description = Description(form, "navy", THINGS if kind == "pair" else THINGS[:1])
    placements = Layout(32)(description, mix(1))
    found = scene(description, placements)
    assert (found["form"], found["background"]) == (form, "navy")
    assert len(found["objects"]) == len(placements)
    for entry, placement in zip(found["objects"], placements, strict=True):
        assert (entry["size"], entry["colour"], entry["shape"]) == placement.thing
        left, top, right, bottom = entry["box"]
        assert entry["centre"] == ((left + right) / 2, (top + bottom) / 2) == placement.centre
        assert right - left == bottom - top == placement.diameter
        assert entry["depth"] == placement.depth
