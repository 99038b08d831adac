import json

import numpy as np
import pytest

from mmjax.data.image_spec import CLIP_MEAN, CLIP_STD, ImageSpec, check_spec, normalize, resize_as
from mmjax.data.images import resize_to


@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (4, 7, 3), (1, 1, 1, 3)])
def test_normalize_is_the_formula(shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    expected = (images / 255.0 - np.array(CLIP_MEAN)) / np.array(CLIP_STD)
    found = normalize(images, ImageSpec(4))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_normalize_leaves_its_input_alone_and_takes_any_layout():
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
    before = images.copy()
    np.testing.assert_array_equal(
        normalize(images[:, :, ::-1], ImageSpec(4)), normalize(images, ImageSpec(4))[:, :, ::-1]
    )
    np.testing.assert_array_equal(images, before)


def test_json_holds_all_fields():
    spec = ImageSpec(48, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), resize="bilinear", fit="squash")
    assert ImageSpec.from_json(spec.to_json()) == spec
    assert json.loads(spec.to_json()) == {
        "size": 48,
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "resize": "bilinear",
        "fit": "squash",
    }
    spec = spec._replace(scaled_size=64)
    assert ImageSpec.from_json(spec.to_json()) == spec


def test_json_of_before_there_was_a_scaled_size():
    old = '{"size": 48, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "resize": "bicubic", "fit": "crop"}'
    spec = ImageSpec.from_json(old)
    assert spec.scaled_size is None
    assert json.loads(spec.to_json()) == json.loads(old)


def test_another_size_keeps_the_share_of_the_centre():
    spec = ImageSpec(224, fit="squash", scaled_size=256)
    assert spec.at(98) == ImageSpec(98, fit="squash", scaled_size=112)
    assert ImageSpec(224).at(98) == ImageSpec(98)


def test_resize_as_takes_every_field():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    spec = ImageSpec(6, resize="nearest", fit="squash", scaled_size=8)
    wanted = resize_to(pixels, 6, resize="nearest", fit="squash", scaled_size=8)
    np.testing.assert_array_equal(resize_as(pixels, spec), wanted)


def test_json_names_the_wrong_field():
    with pytest.raises(ValueError, match="no field 'sice'; did you mean 'size'"):
        ImageSpec.from_json('{"sice": 32}')


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 0}, "size is 0, expected a positive number"),
        ({"size": (32, 32)}, "size is"),
        ({"mean": (0.5,)}, "mean is .* expected three numbers"),
        ({"std": (0.5, 0.0, 0.5)}, "std is .* expected three positive numbers"),
        ({"scaled_size": 31}, "scaled_size is 31, expected None or at least size, 32 pixels"),
        ({"scaled_size": 36.5}, "scaled_size is 36.5, expected"),
        ({"fit": "pad"}, "fit is 'pad', expected 'crop' or 'squash'"),
        ({"resize": "cubic"}, "did you mean 'bicubic'"),
    ],
)
def test_what_cannot_be_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        check_spec(ImageSpec(32)._replace(**change))
