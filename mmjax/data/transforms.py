"""Random transforms of training pictures, configured by name.

A transform is a function `(image, draw, **settings) -> image` over uint8 arrays `[H, W, 3]`; `draw(count)`
gives the uniform numbers that belong to this example and to the transform's name. Names and settings stand in
configs:

    transforms = (("random_resized_crop", {"scale": (0.5, 1.0)}), ("flip", {}))

A setting `draws` gives a transform another name for its numbers; two views of a picture that share it are
cropped alike.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from PIL import Image

from mmjax.data.image_spec import ImageSpec, check_spec, resize_as
from mmjax.data.images import resize_box, resize_to
from mmjax.data.randomness import Draws
from mmjax.paths import suggestion

Draw: TypeAlias = Callable[[int], np.ndarray]
TransformConfig: TypeAlias = str | Sequence[Any]


class Augment(NamedTuple):
    """Transforms in order, then the size of `spec`; it pickles.

    Attributes:
      spec: size and filter of the result.
      steps: name of the random numbers, and function, of each transform.
    """

    spec: ImageSpec
    steps: tuple[tuple[str, Callable[..., np.ndarray]], ...]

    def __call__(self, image: np.ndarray, draws: Draws) -> np.ndarray:
        """`[H, W, 3]` uint8 to `[size, size, 3]` uint8."""
        for name, step in self.steps:
            image = step(image, functools.partial(draws.uniform, name))
        return resize_as(image, self.spec)


def compose(transforms: Sequence[TransformConfig], spec: ImageSpec) -> Augment:
    """One function that applies the transforms in order and brings the picture to the size of `spec`.

    Args:
      transforms: names, or pairs of name and settings.
      spec: size and filter.

    Returns:
      `f(image, draws)`: `[H, W, 3]` uint8 to `[size, size, 3]` uint8.

    Raises:
      ValueError: there is no transform or setting of that name, or two transforms would share their numbers.

    >>> augment = compose(["flip", ("random_resized_crop", {"scale": (0.5, 1.0)})], ImageSpec(4))
    >>> augment(np.zeros((6, 9, 3), np.uint8), Draws(0, 0, 0)).shape
    (4, 4, 3)
    """
    steps = [_step(config, spec) for config in transforms]
    names = [name for name, _ in steps]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"transforms: two draw as {name!r}; rename one by {{'draws': '{name}_2'}}")
    check_spec(spec)
    if any("size" in step.keywords for _, step in steps):
        spec = spec._replace(scaled_size=None)  # What a transform has cut to the final size is not scaled beyond it.
    return Augment(spec, tuple(steps))


def random_resized_crop(
    image: np.ndarray,
    draw: Draw,
    *,
    size: int,
    resize: str = "bicubic",
    scale: Sequence[float] = (0.9, 1.0),
    ratio: Sequence[float] = (3 / 4, 4 / 3),
) -> np.ndarray:
    """A part of random area and aspect, scaled to the final size; the centre where ten attempts do not fit.

    Args:
      image: `[H, W, 3]` uint8.
      draw: random numbers.
      size: side of the result; that of the run's `ImageSpec` by default, like the filter.
      resize: filter.
      scale: least and largest share of the area, in (0, 1].
      ratio: least and largest width over height; the logarithm is uniform.

    Returns:
      `[size, size, 3]` uint8.

    Reference: Szegedy et al., "Going deeper with convolutions", 2015, section 6; the attempts are those of
      torchvision's `RandomResizedCrop`.
    """
    height, width = image.shape[:2]
    low, high = np.log(ratio[0]), np.log(ratio[1])
    for area, aspect, across, down in draw(40).reshape(10, 4):
        pixels = height * width * (scale[0] + area * (scale[1] - scale[0]))
        shape = np.exp(low + aspect * (high - low))
        w, h = round(np.sqrt(pixels * shape)), round(np.sqrt(pixels / shape))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(across * (width - w + 1)), int(down * (height - h + 1))
            return resize_box(image[top : top + h, left : left + w], size, (0, 0, w, h), resize=resize)
    return resize_to(image, size, resize=resize)


def flip(image: np.ndarray, draw: Draw, *, probability: float = 0.5) -> np.ndarray:
    """Left and right exchanged with a probability; beware of captions that speak of left and right."""
    return image[:, ::-1] if draw(1)[0] < probability else image


def grayscale(image: np.ndarray, draw: Draw, *, probability: float = 0.1) -> np.ndarray:
    """Colours taken away with a probability (ITU-R 601 luma)."""
    if draw(1)[0] >= probability:
        return image
    return np.broadcast_to(np.rint(_luma(image)).astype(np.uint8), image.shape)


def color_jitter(
    image: np.ndarray,
    draw: Draw,
    *,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.4,
    hue: float = 0.0,
    probability: float = 1.0,
) -> np.ndarray:
    """Brightness, contrast and saturation times random factors, hue turned by a random angle, in this order.

    Args:
      image: `[H, W, 3]` uint8.
      draw: random numbers.
      brightness: the factor is uniform in `[max(0, 1 - brightness), 1 + brightness]`; the next two likewise.
      contrast: about the mean grey of the picture.
      saturation: about the grey of each pixel.
      hue: the turn is uniform in `[-hue, hue]`, as a share of the circle, at most 0.5.
      probability: of changing the picture at all.

    Returns:
      `[H, W, 3]` uint8.
    """
    chance, *factors, turn = draw(5)
    if chance >= probability:
        return image
    lows = [max(0.0, 1 - amount) for amount in (brightness, contrast, saturation)]
    highs = [1 + amount for amount in (brightness, contrast, saturation)]
    bright, contrasting, saturated = np.add(lows, np.multiply(factors, np.subtract(highs, lows)))
    pixels = np.minimum(image * np.float32(bright), 255)
    mean = _luma(pixels).mean()
    pixels = np.clip(mean + (pixels - mean) * np.float32(contrasting), 0, 255)
    grey = _luma(pixels)
    pixels = np.clip(grey + (pixels - grey) * np.float32(saturated), 0, 255)
    changed = np.rint(pixels).astype(np.uint8)
    if not hue:
        return changed
    circle = np.array(Image.fromarray(changed).convert("HSV"))
    circle[..., 0] += np.uint8(round(256 * hue * (2 * turn - 1)) % 256)
    return np.asarray(Image.fromarray(circle, "HSV").convert("RGB"))


TRANSFORMS: Mapping[str, Callable[..., np.ndarray]] = {
    "color_jitter": color_jitter,
    "flip": flip,
    "grayscale": grayscale,
    "random_resized_crop": random_resized_crop,
}


def _step(config: TransformConfig, spec: ImageSpec) -> tuple[str, functools.partial[np.ndarray]]:
    name, given = (config, {}) if isinstance(config, str) else config
    if name not in TRANSFORMS:
        raise ValueError(f"transforms: no transform {name!r}; {suggestion(name, TRANSFORMS)}")
    function = TRANSFORMS[name]
    known = list(inspect.signature(function).parameters)[2:]
    for setting in given:
        if setting not in (*known, "draws"):
            raise ValueError(f"transforms: {name} has no setting {setting!r}; {suggestion(setting, known)}")
    settings = {setting: getattr(spec, setting) for setting in ("size", "resize") if setting in known} | dict(given)
    draws = settings.pop("draws", name)
    return draws, functools.partial(function, **settings)


def _luma(image: np.ndarray) -> np.ndarray:
    return (image @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
