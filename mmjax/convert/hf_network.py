"""Tokenizer and preprocessing of a Hugging Face folder as `transformers` runs them, for `Network`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mmjax.convert.errors import ConversionError
from mmjax.convert.extras import require


def transformers() -> ModuleType:
    """The package, with `torch` beside it.

    Raises:
      MissingExtraError: one of them is not installed.
    """
    require("torch", extra="torch", purpose="verification")
    package = require("transformers", extra="torch", purpose="verification")
    package.utils.logging.disable_progress_bar()
    return package


def load_pretrained(kind: str, folder: Path, **settings: Any) -> Any:
    """The model of class `kind`, such as "CLIPModel", in float32 and without dropout.

    Raises:
      ConversionError: the folder lacks parameters of it, which `transformers` would draw at random.
    """
    network, report = getattr(transformers(), kind).from_pretrained(
        folder, dtype="float32", output_loading_info=True, **settings
    )
    if missing := sorted(report["missing_keys"]):
        raise ConversionError(f"{kind} cannot be loaded from {folder}", [f"no tensor {name!r}" for name in missing])
    return network.eval()


def hf_parts(folder: Path, *, image: bool = True, text: bool = True) -> dict[str, Any]:
    """The fields `preprocess`, `tokenize` and `facts` of a `Network`, from the files of its folder.

    Args:
      folder: has `preprocessor_config.json` and the tokenizer's files.
      image, text: whether there is a preprocessing, a tokenizer.
    """
    package, torch = transformers(), require("torch", extra="torch", purpose="verification")
    facts = {"versions": f"torch {torch.__version__}, transformers {package.__version__}"}
    parts: dict[str, Any] = {}
    if image:
        # `transformers` prefers torchvision where it is installed, which resizes a little differently from Pillow.
        processor = package.AutoImageProcessor.from_pretrained(folder, backend="pil")
        parts["preprocess"] = _preprocess(processor)
        facts["image processor"] = type(processor).__name__
    if text:
        tokenizer = package.AutoTokenizer.from_pretrained(folder)
        parts["tokenize"] = _tokenize(tokenizer)
        facts["tokenizer"] = type(tokenizer).__name__
    return parts | {"facts": facts}


def _preprocess(processor: Any) -> Callable[[Sequence[np.ndarray]], np.ndarray]:
    def preprocess(pictures: Sequence[np.ndarray]) -> np.ndarray:
        return processor(list(pictures), return_tensors="np")["pixel_values"].transpose(0, 2, 3, 1)

    return preprocess


def _tokenize(tokenizer: Any) -> Callable[[Sequence[str], int], tuple[np.ndarray, np.ndarray]]:
    def tokenize(texts: Sequence[str], length: int) -> tuple[np.ndarray, np.ndarray]:
        settings = {"padding": "max_length", "max_length": length, "truncation": True}
        inputs = tokenizer(list(texts), return_attention_mask=True, return_tensors="np", **settings)
        return inputs["input_ids"], inputs["attention_mask"].astype(bool)

    return tokenize
