"""The one description of how pictures are prepared, shared by training, evaluation and export."""

import json
from typing import Any, NamedTuple

import numpy as np

from mmjax.data.images import resampling, resize_to
from mmjax.paths import suggestion

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class ImageSpec(NamedTuple):
    """Preprocessing of pictures: the one description that pipeline, evaluation and export take.

    Attributes:
      size: side of the square picture, in pixels.
      mean: of red, green and blue, subtracted after scaling to [0, 1].
      std: of red, green and blue, divided by.
      resize: filter, "bicubic", "bilinear", "lanczos" or "nearest".
      fit: "crop" scales the shorter side and keeps the centre (CLIP); "squash" scales both sides (SigLIP).
      scaled_size: what `fit` scales to, in pixels, before the centre of `size` is kept; None = `size`. DINOv2 has 256
        for 224. Random crops, which come out at `size`, pass it by.

    >>> spec = ImageSpec(size=32, scaled_size=40)
    >>> ImageSpec.from_json(spec.to_json()) == spec
    True
    """

    size: int
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    resize: str = "bicubic"
    fit: str = "crop"
    scaled_size: int | None = None

    def at(self, size: int) -> "ImageSpec":
        """The same for pictures of another size, of which the centre is the same share.

        >>> ImageSpec(224, scaled_size=256).at(112).scaled_size
        128
        """
        scaled = None if self.scaled_size is None else round(self.scaled_size * size / self.size)
        return self._replace(size=size, scaled_size=scaled)

    def to_dict(self) -> dict[str, Any]:
        """The fields but those that are None, which older files do not have either."""
        return {name: value for name, value in self._asdict().items() if value is not None}

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> "ImageSpec":
        """The inverse of `to_json`."""
        fields = json.loads(text)
        unknown = [name for name in fields if name not in cls._fields]
        if unknown:
            raise ValueError(f"ImageSpec.from_json: no field {unknown[0]!r}; {suggestion(unknown[0], cls._fields)}")
        fields |= {name: tuple(fields[name]) for name in ("mean", "std") if name in fields}
        return check_spec(cls(**fields))


def check_spec(spec: ImageSpec) -> ImageSpec:
    """The description itself, or ValueError naming the field that cannot be."""
    if not isinstance(spec.size, int) or spec.size < 1:
        raise ValueError(f"ImageSpec: size is {spec.size!r}, expected a positive number of pixels")
    for name, values in (("mean", spec.mean), ("std", spec.std)):
        if len(values) != 3 or (name == "std" and min(values) <= 0):
            raise ValueError(f"ImageSpec: {name} is {values!r}, expected three {'positive ' * (name == 'std')}numbers")
    scaled = spec.scaled_size
    if scaled is not None and (not isinstance(scaled, int) or scaled < spec.size):
        raise ValueError(f"ImageSpec: scaled_size is {scaled!r}, expected None or at least size, {spec.size} pixels")
    if spec.fit not in ("crop", "squash"):
        raise ValueError(f"ImageSpec: fit is {spec.fit!r}, expected 'crop' or 'squash'")
    resampling(spec.resize)
    return spec


def resize_as(image: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """The picture `[H, W, 3]` uint8 at `[size, size, 3]`, scaled and cut as `spec` says; see `resize_to`.

    >>> resize_as(np.zeros((9, 12, 3), np.uint8), ImageSpec(size=4, scaled_size=6)).shape
    (4, 4, 3)
    """
    return resize_to(image, spec.size, resize=spec.resize, fit=spec.fit, scaled_size=spec.scaled_size)


def normalize(images: np.ndarray, spec: ImageSpec, *, out: np.ndarray | None = None) -> np.ndarray:
    """uint8 pictures as the tower reads them.

    `(x / 255 - mean) / std`

    Args:
      images: `[..., W, 3]` uint8.
      spec: gives `mean` and `std`.
      out: float32 array of the same shape to write to, C-contiguous.

    Returns:
      `[..., W, 3]` float32.

    >>> spec = ImageSpec(size=1, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    >>> normalize(np.full((1, 1, 1, 3), 255, np.uint8), spec)
    array([[[[1., 1., 1.]]]], dtype=float32)
    """
    if out is None:
        out = np.empty(images.shape, np.float32)
    # NumPy broadcasts over a last axis of three slowly, over a whole line of pixels fast.
    width = images.shape[-2]
    offset = np.tile(np.multiply(spec.mean, 255, dtype=np.float32), width)
    factor = np.tile(np.divide(1, np.multiply(spec.std, 255)).astype(np.float32), width)
    lines = out.reshape(-1, 3 * width)
    np.subtract(images.reshape(-1, 3 * width), offset, out=lines)
    lines *= factor
    return out
