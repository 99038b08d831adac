import pickle

import numpy as np
import pytest

from mmjax.data.image_spec import ImageSpec
from mmjax.data.images import resize_to
from mmjax.data.randomness import Draws
from mmjax.data.transforms import TRANSFORMS, color_jitter, compose, flip, grayscale, random_resized_crop

SPEC = ImageSpec(8)
CROP = ("random_resized_crop", {"scale": (0.2, 0.8)})


def picture(height=20, width=24, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def fixed(*numbers):
    """A stream that begins with these numbers."""
    return lambda count: np.resize(numbers, count)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_keep_the_contract(name):
    original = picture()
    before = original.copy()
    augment = compose([name], SPEC)
    results = [augment(original, Draws(0, 0, index)) for index in range(20)]
    for result in results:
        assert result.dtype == np.uint8
        assert result.shape == (8, 8, 3)
    assert len({result.tobytes() for result in results}) > 1
    np.testing.assert_array_equal(augment(original, Draws(0, 0, 3)), results[3])
    np.testing.assert_array_equal(original, before)


def test_one_transform_does_not_move_another():
    # A flip that never happens and a jitter without effect take numbers of their own names only.
    quiet = ("flip", {"probability": 0.0})
    still = ("color_jitter", {"brightness": 0, "contrast": 0, "saturation": 0})
    alone = compose([CROP], SPEC)
    for others in ([quiet, CROP], [CROP, still], [quiet, still, CROP]):
        among = compose(others, SPEC)
        for index in range(10):
            np.testing.assert_array_equal(among(picture(), Draws(1, 2, index)), alone(picture(), Draws(1, 2, index)))


def test_views_share_draws_by_name():
    teacher = compose([CROP, "color_jitter"], SPEC)
    student = compose([CROP], SPEC)
    apart = compose([(CROP[0], {**CROP[1], "draws": "student"})], SPEC)
    still = compose([CROP, ("color_jitter", {"probability": 0.0})], SPEC)
    same = differ = 0
    for index in range(10):
        draws = Draws(0, 0, index)
        np.testing.assert_array_equal(still(picture(), draws), student(picture(), draws))
        same += (teacher(picture(), draws) == student(picture(), draws)).all()
        differ += (apart(picture(), draws) != student(picture(), draws)).any()
    assert same == 0
    assert differ == 10


def test_views_of_two_sizes_see_the_same_part():
    # A picture whose value is its column: the crop's mean tells where it was taken.
    columns = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None] * 4, 64, axis=0).repeat(3, axis=2)
    small, large = compose([CROP], ImageSpec(8)), compose([CROP], ImageSpec(32))
    for index in range(10):
        draws = Draws(0, 0, index)
        assert abs(small(columns, draws).mean() - large(columns, draws).mean()) < 1.0


def test_no_transforms_is_the_evaluation():
    np.testing.assert_array_equal(compose([], SPEC)(picture(), Draws(0, 0, 0)), resize_to(picture(), 8))
    squash = ImageSpec(8, fit="squash")
    np.testing.assert_array_equal(compose([], squash)(picture(), Draws(0, 0, 0)), resize_to(picture(), 8, fit="squash"))


def test_only_a_crop_to_the_final_size_is_not_scaled_again():
    larger, image, draws = SPEC._replace(scaled_size=12), picture(20, 16), Draws(0, 0, 0)
    evaluated = resize_to(image, 8, scaled_size=12)
    np.testing.assert_array_equal(compose([], larger)(image, draws), evaluated)
    mirrored = compose([("flip", {"probability": 1.0})], larger)(image, draws)
    np.testing.assert_array_equal(mirrored, resize_to(image[:, ::-1], 8, scaled_size=12))
    np.testing.assert_array_equal(compose([CROP], larger)(image, draws), compose([CROP], SPEC)(image, draws))


def test_crop_of_everything_is_the_resize():
    square = picture(16, 16)
    whole = random_resized_crop(square, fixed(0.5), size=8, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    np.testing.assert_array_equal(whole, resize_to(square, 8))


def test_crop_by_hand():
    # A quarter of 8 x 8 at ratio 1 is 4 x 4; 0.99 * (8 - 4 + 1) is place 4, 0.3 * 5 place 1.
    square = picture(8, 8)
    found = random_resized_crop(square, fixed(0.0, 0.5, 0.99, 0.3), size=4, scale=(0.25, 1.0), ratio=(1.0, 1.0))
    np.testing.assert_array_equal(found, square[1:5, 4:8])


def test_crop_that_never_fits_takes_the_centre():
    found = random_resized_crop(picture(10, 30), fixed(0.5), size=8, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    np.testing.assert_array_equal(found, resize_to(picture(10, 30), 8))


def test_one_pixel_survives_every_transform():
    augment = compose(list(TRANSFORMS), SPEC)
    assert augment(np.full((1, 1, 3), 77, np.uint8), Draws(0, 0, 0)).shape == (8, 8, 3)


def test_flip():
    np.testing.assert_array_equal(flip(picture(), fixed(0.49)), picture()[:, ::-1])
    np.testing.assert_array_equal(flip(picture(), fixed(0.5)), picture())


def test_grayscale():
    grey = grayscale(picture(), fixed(0.0))
    expected = np.rint(picture() @ [0.299, 0.587, 0.114])
    np.testing.assert_allclose(grey, np.repeat(expected[..., None], 3, axis=2), atol=1)
    np.testing.assert_array_equal(grayscale(picture(), fixed(0.9)), picture())


def test_jitter_in_the_middle_changes_nothing():
    # A factor drawn at 0.5 is 1, a turn drawn at 0.5 is none.
    np.testing.assert_array_equal(color_jitter(picture(), fixed(0.5)), picture())


def test_jitter_by_hand():
    dark = np.full((2, 2, 3), 100, np.uint8)
    settings = {"contrast": 0.0, "saturation": 0.0}
    np.testing.assert_array_equal(color_jitter(dark, fixed(0.75), brightness=0.4, **settings), dark + 20)
    np.testing.assert_array_equal(color_jitter(dark, fixed(0.0), brightness=2.0, **settings), dark * 0)
    two = np.array([[[50] * 3, [150] * 3]], np.uint8)
    # Contrast 0 is the mean grey, saturation 0 the grey of each pixel.
    flat = color_jitter(two, fixed(0.5, 0.5, 0.0, 0.5, 0.5), contrast=1.0)
    np.testing.assert_array_equal(flat, np.full((1, 2, 3), 100))
    pale = color_jitter(picture(), fixed(0.5, 0.5, 0.5, 0.0, 0.5), saturation=1.0)
    assert np.ptp(pale.astype(int), axis=2).max() <= 1


def test_hue_turns_colours_and_not_greys():
    red = np.full((1, 1, 3), (200, 0, 0), np.uint8)
    turned = color_jitter(red, fixed(0.5, 0.5, 0.5, 0.5, 1.0), hue=1 / 3)
    np.testing.assert_allclose(turned, [[[0, 200, 0]]], atol=6)
    grey = np.full((1, 1, 3), 90, np.uint8)
    np.testing.assert_array_equal(color_jitter(grey, fixed(0.5, 0.5, 0.5, 0.5, 1.0), hue=0.3), grey)


def test_composition_pickles():
    augment = compose([CROP, "flip", "color_jitter"], SPEC)
    copied = pickle.loads(pickle.dumps(augment))
    np.testing.assert_array_equal(copied(picture(), Draws(0, 0, 1)), augment(picture(), Draws(0, 0, 1)))


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        (["flipp"], "no transform 'flipp'; did you mean 'flip'"),
        ([("flip", {"probabilty": 1.0})], "flip has no setting 'probabilty'; did you mean 'probability'"),
        (["flip", "flip"], "two draw as 'flip'"),
        ([CROP, ("flip", {"draws": "random_resized_crop"})], "two draw as 'random_resized_crop'"),
    ],
)
def test_wrong_configs_are_named(transforms, message):
    with pytest.raises(ValueError, match=message):
        compose(transforms, SPEC)
