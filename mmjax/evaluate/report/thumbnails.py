"""Pictures as data URIs: small enough for a page of hundreds, and crisp where they were tiny to begin with."""

import base64
import io
from typing import NamedTuple

import numpy as np
from PIL import Image

_TINY = 64


class Thumbnail(NamedTuple):
    """A picture for the page.

    Attributes:
      uri: `data:image/...;base64,...`.
      tiny: whether it has so few pixels that it should be enlarged pixel by pixel.
    """

    uri: str
    tiny: bool


def thumbnail(image: np.ndarray, *, side: int = 128) -> Thumbnail:
    """The whole picture, its longer side at most `side` pixels.

    Args:
      image: `[H, W, 3]` uint8.
      side: of the result; a smaller picture keeps its size.

    Returns:
      A PNG of a tiny picture, WebP of any other.

    >>> thumbnail(np.zeros((8, 8, 3), np.uint8)).uri[:22]
    'data:image/png;base64,'
    """
    picture = Image.fromarray(image)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    if max(picture.size) <= _TINY:
        return Thumbnail(png_uri(picture), tiny=True)
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=80)
    return Thumbnail(_uri("webp", file), tiny=False)


def png_uri(picture: Image.Image) -> str:
    """A picture as PNG."""
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return _uri("png", file)


def _uri(kind: str, file: io.BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
