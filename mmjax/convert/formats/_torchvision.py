"""Pictures as a pipeline of torchvision prepares them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

CROP_FACT = "begins at half the margin, rounded down; torchvision's rounds to an even number"


def preprocess_by(pipeline: Any) -> Callable[[Sequence[np.ndarray]], np.ndarray]:
    """What a `Compose` makes of pictures, for `Network.preprocess`, but that its `CenterCrop` rounds down.

    Where the margin is odd, torchvision rounds half of it to an even number, transformers and mmjax round it down.
    Pictures that are one pixel apart would hide every other difference.
    """
    steps = [_centre(*step.size) if type(step).__name__ == "CenterCrop" else step for step in pipeline.transforms]

    def preprocess(pictures: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack([prepare(Image.fromarray(picture)).numpy().transpose(1, 2, 0) for picture in pictures])

    def prepare(picture: Any) -> Any:
        for step in steps:
            picture = step(picture)
        return picture

    return preprocess


def _centre(height: int, width: int) -> Callable[[Image.Image], Image.Image]:
    def cut(picture: Image.Image) -> Image.Image:
        left, top = (picture.width - width) // 2, (picture.height - height) // 2
        return picture.crop((left, top, left + width, top + height))

    return cut
