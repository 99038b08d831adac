import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mmjax.data import images
from mmjax.data.images import decode_image, resize_to
from mmjax.data.records import CorruptRecordError


def noise(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def encoded(image, form="PNG", **settings):
    file = io.BytesIO()
    image.save(file, form, **settings)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["bytes", "path", "array"])
def test_three_forms_of_one_picture(tmp_path, kind):
    pixels = noise(5, 7)
    (tmp_path / "picture.png").write_bytes(encoded(Image.fromarray(pixels)))
    forms = {
        "bytes": encoded(Image.fromarray(pixels)),
        "path": str(tmp_path / "picture.png"),
        "array": pixels,
    }
    decoded = decode_image(forms[kind])
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, pixels)


def test_transparency_becomes_white():
    # Black at alpha 0, 102 (40 %) and 255: 255, 153 and 0.
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :, 3] = [0, 102, 255]
    expected = np.repeat([[[255], [153], [0]]], 3, axis=2)
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(pixels))), expected)
    np.testing.assert_array_equal(decode_image(pixels), expected)


def test_transparent_palette_and_grey():
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putdata([0, 1])
    np.testing.assert_array_equal(decode_image(encoded(palette)), [[[10, 20, 30], [40, 50, 60]]])
    transparent = encoded(palette, transparency=1)
    np.testing.assert_array_equal(decode_image(transparent), [[[10, 20, 30], [255, 255, 255]]])
    grey = Image.fromarray(np.array([[[0, 0], [100, 255]]], np.uint8), "LA")
    np.testing.assert_array_equal(decode_image(encoded(grey)), [[[255] * 3, [100] * 3]])


def test_sixteen_bits_are_scaled():
    # 65535 / 255 = 257: the value 257 k is k.
    values = np.array([[0, 257, 257 * 128, 65535]], np.uint16)
    expected = np.repeat([[[0], [1], [128], [255]]], 3, axis=2)
    np.testing.assert_array_equal(decode_image(values), expected)
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(values))), expected)
    np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(values.astype(np.int32)), "TIFF")), expected)


@pytest.mark.parametrize(("ink", "expected"), [((0, 0, 0, 0), 255), ((0, 0, 0, 255), 0), ((255, 255, 255, 0), 0)])
def test_cmyk(ink, expected):
    decoded = decode_image(encoded(Image.new("CMYK", (8, 8), ink), "JPEG", quality=95))
    assert np.abs(decoded.astype(int) - expected).max() <= 3


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_first_frame_of_an_animation(form):
    first, second = Image.new("RGB", (4, 4), (250, 0, 0)), Image.new("RGB", (4, 4), (0, 0, 250))
    settings = {"lossless": True} if form == "WEBP" else {}
    decoded = decode_image(encoded(first, form, save_all=True, append_images=[second], **settings))
    np.testing.assert_array_equal(decoded, np.asarray(first))


def test_upright_as_the_camera_was_held():
    picture = Image.fromarray(noise(3, 5))
    exif = Image.Exif()
    exif[274] = 6  # turn by 90 degrees clockwise to view
    np.testing.assert_array_equal(decode_image(encoded(picture, exif=exif)), np.rot90(np.asarray(picture), axes=(1, 0)))


def huge_png(width, height):
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(100))),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"this is a text", "is no image in a format that Pillow reads"),
        (b"", "is no image in a format that Pillow reads"),
        (encoded(Image.fromarray(noise(40, 40)))[:900], "is a damaged image"),
        (encoded(Image.fromarray(noise(40, 40)), "JPEG")[:900], "is a damaged image"),
        (huge_png(9000, 8000), "is 9000 x 8000 pixels, more than 67108864 in all"),
        (huge_png(10000, 10000), "is 10000 x 10000 pixels"),
        (huge_png(60000, 60000), "exceeds limit"),
    ],
    ids=["text", "empty", "cut png", "cut jpeg", "large", "larger", "bomb"],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_is_no_picture_is_named(tmp_path, content, reason):
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(CorruptRecordError, match=reason) as error:
        decode_image(str(path), where="train.jsonl line 7")
    assert error.value.where == f"train.jsonl line 7: {path}"
    with pytest.raises(CorruptRecordError, match=reason) as error:
        decode_image(content, where="shard-0.tar: key")
    assert error.value.where == "shard-0.tar: key"


def test_missing_file_is_named(tmp_path):
    with pytest.raises(CorruptRecordError, match=r"line 3: .*none\.png: no such file"):
        decode_image(str(tmp_path / "none.png"), where="line 3")


@pytest.mark.parametrize(
    "array", [np.zeros((2, 2, 3), np.float32), np.zeros((2, 2, 2), np.uint8), np.zeros((0, 2, 3), np.uint16)]
)
def test_arrays_of_other_kinds_are_refused(array):
    with pytest.raises(CorruptRecordError, match="expected 8 or 16 bits"):
        decode_image(array)


def test_float_files_are_refused():
    with pytest.raises(CorruptRecordError, match="float32"):
        decode_image(encoded(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF"))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (30, 17), (12, 40), (7, 7), (200, 60)])
@pytest.mark.parametrize("size", [1, 7, 16])
def test_crop_is_the_centre_of_the_scaled_picture(shape, size):
    pixels = noise(*shape)
    height, width = (size * side // min(shape) for side in shape)
    whole = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
    top, left = (height - size) // 2, (width - size) // 2
    np.testing.assert_array_equal(resize_to(pixels, size), whole[top : top + size, left : left + size])


@pytest.mark.parametrize("shape", [(9, 9), (11, 11), (30, 17), (12, 41)])
@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_the_centre_of_a_larger_picture(shape, fit):
    pixels = noise(*shape)
    height, width = (11, 11) if fit == "squash" else (11 * side // min(shape) for side in shape)
    whole = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
    top, left = (height - 9) // 2, (width - 9) // 2
    found = resize_to(pixels, 9, fit=fit, scaled_size=11)
    np.testing.assert_array_equal(found, whole[top : top + 9, left : left + 9])


def test_picture_of_the_right_size_is_not_touched():
    pixels = noise(6, 6)
    assert resize_to(pixels, 6) is pixels
    assert resize_to(pixels, 6, scaled_size=6) is pixels


def test_squash_keeps_the_corners():
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, 4:] = 255
    np.testing.assert_array_equal(resize_to(pixels, 2, resize="nearest", fit="squash")[..., 0], [[0, 255], [0, 255]])


def test_strip_does_not_take_all_memory():
    strip = np.full((1, 200_000, 3), 9, np.uint8)
    strip[:, 100_000:] = 201
    scaled = resize_to(strip, 64, resize="nearest")
    assert scaled.shape == (64, 64, 3)
    assert set(scaled.ravel()) <= {9, 201}
    np.testing.assert_array_equal(resize_to(np.full((200_000, 1, 3), 9, np.uint8), 8), np.full((8, 8, 3), 9))


def test_unknown_filter_lists_near_ones():
    with pytest.raises(ValueError, match="did you mean 'bicubic'"):
        images.resampling("bicubik")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_same_pixels_as_transformers():
    transformers = pytest.importorskip("transformers")
    for seed in range(20):
        height, width, size, more = np.random.default_rng(seed).integers([8, 8, 8, 0], [90, 90, 90, 20]).tolist()
        pixels = noise(height, width, seed=seed)
        theirs = transformers.CLIPImageProcessorPil(
            size={"shortest_edge": size + more},
            crop_size={"height": size, "width": size},
            do_rescale=False,
            do_normalize=False,
        )(Image.fromarray(pixels), return_tensors="np")["pixel_values"][0]
        ours = resize_to(pixels, size, scaled_size=size + more)
        np.testing.assert_array_equal(ours, theirs.transpose(1, 2, 0))
