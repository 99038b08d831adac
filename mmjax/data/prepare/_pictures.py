"""Pictures of prepared data sets: opaque, of bounded size, as PNG."""

import io
from pathlib import Path

from PIL import Image


def png_on_white(picture: Image.Image, *, size: int | None = None) -> bytes:
    """A picture as an RGB PNG, what is transparent in it shown on white, as on a page.

    Args:
      picture: of any mode.
      size: the longest side that stays as it is, pixels; a larger picture is scaled down to it.
    """
    picture = picture.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    opaque = Image.alpha_composite(white, picture).convert("RGB")
    if size is not None:
        opaque.thumbnail((size, size), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    opaque.save(file, "PNG")
    return file.getvalue()


def rasterize(file: Path, *, size: int) -> Image.Image:
    """A vector graphic drawn `size` pixels wide, without any font of the machine, so that it looks the same everywhere.

    Raises:
      ModuleNotFoundError: `resvg_py` is not installed.
      ValueError: the file is no SVG.
    """
    import resvg_py

    # Without a resolution, sizes in points or millimetres come out as zero.
    data = resvg_py.svg_to_bytes(svg_path=str(file), width=size, dpi=96, skip_system_fonts=True)
    return Image.open(io.BytesIO(data))
