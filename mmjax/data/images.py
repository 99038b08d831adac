"""Pictures in any of their forms to uint8 RGB arrays, and to the size a model reads; Pillow does the work."""

import io
import pathlib
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from mmjax.data.records import CorruptRecordError
from mmjax.paths import suggestion

MAX_PIXELS = 2**26
_STRIP = 64

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def decode_image(image: bytes | str | pathlib.Path | np.ndarray, *, where: str = "") -> np.ndarray:
    """A picture as uint8 RGB array; transparency becomes white, an animation its first frame.

    Args:
      image: an encoded file as bytes, its path, or an array `[H, W]` or `[H, W, C]` of uint8 or uint16, with
        C of 1, 3 or 4.
      where: the place of the record, for the message; the path of a file is added to it.

    Returns:
      `[H, W, 3]` uint8, upright where the file says how it was held (EXIF).

    Raises:
      CorruptRecordError: there is no such file, it is no picture, it is cut short, or it has more than 2**26
        pixels.

    >>> decode_image(np.zeros((2, 3, 1), np.uint8)).shape
    (2, 3, 3)
    """
    if isinstance(image, np.ndarray):
        if image.dtype == np.uint8 and image.ndim == 3 and image.shape[-1] == 3:
            return image
        return _from_array(image, where or "array")
    if isinstance(image, bytes):
        return _read(io.BytesIO(image), where or "image")
    path = f"{where}: {image}" if where else str(image)
    if not pathlib.Path(image).is_file():
        raise CorruptRecordError(path, "no such file")
    return _read(image, path)


def resize_to(
    image: np.ndarray, size: int, *, resize: str = "bicubic", fit: str = "crop", scaled_size: int | None = None
) -> np.ndarray:
    """The picture at `size` by `size` pixels, antialiased.

    "crop" scales the shorter side to `scaled_size` and keeps the centre, as CLIP does; "squash" scales both sides, as
    SigLIP does.

    Args:
      image: `[H, W, 3]` uint8.
      size: side of the result in pixels.
      resize: name of the filter: "nearest", "bilinear", "bicubic" or "lanczos".
      fit: "crop" or "squash".
      scaled_size: side in pixels of which the centre is kept, at least `size`; None = `size`.

    Returns:
      `[size, size, 3]` uint8; `image` itself where it has that size and is not to be scaled beyond it.

    >>> resize_to(np.zeros((1, 3, 3), np.uint8), 2).shape
    (2, 2, 3)
    """
    scaled = size if scaled_size is None else scaled_size
    height, width = image.shape[:2]
    if (height, width) == (size, size) and scaled == size:
        return image
    if fit == "squash":
        height = width = scaled
    else:
        short = min(height, width)
        if max(height, width) > _STRIP * short:
            # Of a strip only the middle is kept: its long side at full scale could take all memory.
            top, left = ((side - min(side, _STRIP * short)) // 2 for side in (height, width))
            image = image[top : top + _STRIP * short, left : left + _STRIP * short]
            height, width = image.shape[:2]
        # Whole picture first, then the centre, with sides rounded down: the pixels of transformers'
        # CLIPImageProcessor to the last bit.
        height, width = (int(scaled * side / short) for side in (height, width))
    picture = Image.fromarray(image).resize((width, height), resampling(resize))
    left, top = (width - size) // 2, (height - size) // 2
    return np.asarray(picture.crop((left, top, left + size, top + size)))


def resize_box(
    image: np.ndarray, size: int, box: tuple[float, float, float, float], *, resize: str = "bicubic"
) -> np.ndarray:
    """The part `box` (left, top, right, bottom, in pixels) of a picture `[H, W, 3]`, at `[size, size, 3]`."""
    return np.asarray(Image.fromarray(image).resize((size, size), resampling(resize), box=box))


def resampling(name: str) -> Image.Resampling:
    """Pillow's filter of that name."""
    if name not in FILTERS:
        raise ValueError(f"resize is {name!r}, which is no filter; {suggestion(name, FILTERS)}")
    return FILTERS[name]


def _read(file: Any, where: str) -> np.ndarray:
    try:
        with Image.open(file) as image:
            _check_pixels(image, where)
            return _to_rgb(ImageOps.exif_transpose(image), where)
    except CorruptRecordError:
        raise
    except Image.UnidentifiedImageError:
        raise CorruptRecordError(where, "is no image in a format that Pillow reads") from None
    except Exception as error:  # Pillow's decoders raise errors of many kinds on damaged files
        raise CorruptRecordError(where, f"is a damaged image ({error or type(error).__name__})") from error


def _check_pixels(image: Image.Image, where: str) -> None:
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise CorruptRecordError(
            where,
            f"is {image.width} x {image.height} pixels, more than {MAX_PIXELS} in all; scale it down",
        )


def _to_rgb(image: Image.Image, where: str) -> np.ndarray:
    if image.mode.startswith("I") or image.mode == "F":
        return _from_array(np.asarray(image), where)
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        image = opaque
    return np.asarray(image.convert("RGB"))


def _from_array(image: np.ndarray, where: str) -> np.ndarray:
    if image.dtype.kind == "i" and image.min(initial=0) >= 0 and image.max(initial=0) < 2**16:
        image = image.astype(np.uint16)
    if image.dtype == np.uint16:
        image = ((image.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if image.ndim == 2:
        image = image[..., None]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 3, 4) or 0 in image.shape:
        found = f"is a {image.dtype} array of shape {image.shape}"
        raise CorruptRecordError(where, f"{found}, expected 8 or 16 bits, [H, W, C] with C of 1, 3 or 4")
    if image.shape[-1] == 4:
        colour, alpha = image[..., :3].astype(np.uint32), image[..., 3:].astype(np.uint32)
        return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return np.broadcast_to(image, (*image.shape[:2], 3))
