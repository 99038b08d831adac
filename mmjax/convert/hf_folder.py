"""The files of a Hugging Face folder beside its weights: tokenizer and preprocessing, which its model formats share."""

import json
from pathlib import Path
from typing import Any

from mmjax.convert.errors import ConversionError
from mmjax.convert.source import read_json, write_json
from mmjax.data import ImageSpec, Tokenizer, clip_bpe
from mmjax.data.images import FILTERS


def write_tokenizer(
    folder: Path, tokenizer: Tokenizer | None, *, context_length: int | None, processor: str | None = None
) -> None:
    """Writes `tokenizer.json` and `tokenizer_config.json`.

    The class is the generic one, which runs `tokenizer.json` as it is; `CLIPTokenizer` would keep the vocabulary and
    replace the splitting into words by its own.

    Args:
      folder: to write into.
      tokenizer: to write; None = nothing is written.
      context_length: tokens a text may have.
      processor: class that joins tokenizer and image processor, where there is one.
    """
    if tokenizer is None:
        return
    tokenizer.save(folder / "tokenizer.json")
    padding = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["padding"]["pad_token"]
    tokens = {"bos_token": tokenizer.bos_id, "eos_token": tokenizer.eos_id}
    names = {name: tokenizer.backend.id_to_token(index) for name, index in tokens.items() if index is not None}
    settings = {"model_max_length": context_length, "padding_side": "right", "truncation_side": "right"}
    settings |= {"model_input_names": ["input_ids", "attention_mask"], "clean_up_tokenization_spaces": False}
    classes = {"tokenizer_class": "PreTrainedTokenizerFast"} | ({"processor_class": processor} if processor else {})
    write_json(folder / "tokenizer_config.json", classes | names | {"pad_token": padding} | settings)


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of `tokenizer.json`, or CLIP's own of `vocab.json` and `merges.txt`.

    Raises:
      ConversionError: there is neither.
    """
    if (folder / "tokenizer.json").is_file():
        return Tokenizer.load(folder / "tokenizer.json")
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return clip_bpe(folder / "vocab.json")
    raise ConversionError(f"cannot read {folder}", ["neither tokenizer.json nor vocab.json with merges.txt"])


# What `transformers` assumes where a `preprocessor_config.json` says nothing; CLIP's where it names no class.
_CROPPING = {"do_center_crop": True, "resample": int(FILTERS["bicubic"])}
_SQUASHING = {"do_center_crop": False, "resample": int(FILTERS["bilinear"])}
_ASSUMED: dict[str, dict[str, Any]] = {
    "BitImageProcessor": _CROPPING,
    "CLIPImageProcessor": _CROPPING,
    "SiglipImageProcessor": _SQUASHING | {"resample": int(FILTERS["bicubic"])},
    "ViTImageProcessor": _SQUASHING,
}


def write_preprocessing(
    folder: Path, image: ImageSpec | None, *, kind: str = "CLIPImageProcessor", processor: str | None = None
) -> None:
    """Writes `preprocessor_config.json`: resizing, centre crop, scaling to [0, 1], mean and standard deviation.

    Args:
      folder: to write into.
      image: the preprocessing; None = nothing is written.
      kind: class of the image processor. Those of SigLIP and ViT cannot crop, so a spec that does takes CLIP's.
      processor: class that joins tokenizer and image processor, where there is one.
    """
    if image is None:
        return
    scaled = image.scaled_size or image.size
    cropping = image.fit == "crop" or scaled != image.size
    content = {
        "image_processor_type": kind if not cropping or _ASSUMED[kind]["do_center_crop"] else "CLIPImageProcessor",
        **({"processor_class": processor} if processor else {}),
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": scaled} if image.fit == "crop" else {"height": scaled, "width": scaled},
        "resample": int(FILTERS[image.resize]),
        "do_center_crop": cropping,
        "crop_size": {"height": image.size, "width": image.size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(image.mean),
        "image_std": list(image.std),
    }
    write_json(folder / "preprocessor_config.json", content)


def read_preprocessing(folder: Path) -> ImageSpec:
    """The preprocessing of `preprocessor_config.json` or, as newer folders have it, of `processor_config.json`.

    Raises:
      ConversionError: it is no preprocessing that `ImageSpec` describes; all reasons are listed.
    """
    nested = folder / "processor_config.json"
    config = read_json(nested).get("image_processor") if nested.is_file() else None
    config = config or read_json(folder / "preprocessor_config.json")
    kind = config.get("image_processor_type") or config.get("feature_extractor_type") or "CLIPImageProcessor"
    for suffix in ("Fast", "Pil"):
        kind = kind.removesuffix(suffix)
    kind = kind.replace("FeatureExtractor", "ImageProcessor")
    steps = ("do_resize", "do_rescale", "do_normalize")
    problems = [f"{step} is false, expected true" for step in steps if not config.get(step, True)]
    problems += [f"no {key}" for key in ("image_mean", "image_std") if key not in config]
    if kind not in _ASSUMED:
        problems.append(f"image_processor_type is {kind!r}, expected one of {', '.join(map(repr, _ASSUMED))}")
    config = _ASSUMED.get(kind, {}) | config
    cropped = config.get("do_center_crop", True)
    # Old folders have one number where newer ones name the sides: the shorter one, of what crops as a rule.
    side = "shortest_edge" if _ASSUMED.get(kind, _CROPPING)["do_center_crop"] else "height"
    size, crop = (
        {name: value} if isinstance(value := config.get(key), int) else value or {}
        for key, name in (("size", side), ("crop_size", "height"))
    )
    whole = size.get("shortest_edge") is not None
    scaled = {value for value in size.values() if value is not None}
    final = {value for value in crop.values() if value is not None} if cropped else scaled
    if len(scaled) != 1 or len(final) != 1 or max(final) > max(scaled) or (whole and not cropped):
        found = f"size {size} and crop_size {crop if cropped else None}"
        problems.append(f"{found}, expected squares, the second not larger than the first")
    filters = {int(number): name for name, number in FILTERS.items()}
    if (resample := config.get("resample", -1)) not in filters:
        problems.append(f"resample is {resample}, expected one of {filters}")
    factor = config.get("rescale_factor", 1 / 255)
    if abs(factor * 255 - 1) > 1e-6:
        problems.append(f"rescale_factor is {factor}, expected 1/255")
    if problems:
        raise ConversionError(f"cannot take over the preprocessing of {folder}", problems)
    mean, std = tuple(config["image_mean"]), tuple(config["image_std"])
    fit, side, scaled_side = "crop" if whole else "squash", max(final), max(scaled)
    return ImageSpec(side, mean, std, filters[resample], fit, scaled_side if scaled_side != side else None)
