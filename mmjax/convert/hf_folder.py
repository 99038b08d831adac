"""The files of a Hugging Face folder: weights, tokenizer and preprocessing, which its model formats share."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from mmjax.convert.rules import ConversionError
from mmjax.data import ImageSpec, Tokenizer, clip_bpe
from mmjax.data.images import FILTERS
from mmjax.paths import suggestion


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes `content` as indented JSON."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON of a file.

    Raises:
      ConversionError: the file is missing or is no JSON.
    """
    if not path.is_file():
        there = [file.name for file in path.parent.glob("*")]
        raise ConversionError(f"cannot read {path.parent}", [f"no {path.name}; {suggestion(path.name, there)}"])
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ConversionError(f"cannot read {path.parent}", [f"{path.name} is no JSON: {error}"]) from None


def write_tensors(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    """Writes `model.safetensors`, marked as made for PyTorch."""
    path = folder / "model.safetensors"
    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(mode)  # safetensors makes files that only their owner may read.


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """The tensors of `model.safetensors`, or of the shards that `model.safetensors.index.json` lists.

    Raises:
      ConversionError: there is neither.
    """
    index = folder / "model.safetensors.index.json"
    names = sorted(set(read_json(index)["weight_map"].values())) if index.is_file() else ["model.safetensors"]
    missing = [f"no {name}" for name in names if not (folder / name).is_file()]
    if missing:
        raise ConversionError(f"cannot read {folder}", missing)
    return {name: tensor for file in names for name, tensor in load_file(folder / file).items()}


def write_tokenizer(folder: Path, tokenizer: Tokenizer, *, context_length: int, processor: str) -> None:
    """Writes `tokenizer.json` and `tokenizer_config.json`.

    The class is the generic one, which runs `tokenizer.json` as it is; `CLIPTokenizer` would keep the vocabulary and
    replace the splitting into words by its own.
    """
    tokenizer.save(folder / "tokenizer.json")
    padding = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["padding"]["pad_token"]
    tokens = {"bos_token": tokenizer.bos_id, "eos_token": tokenizer.eos_id}
    names = {name: tokenizer.backend.id_to_token(index) for name, index in tokens.items() if index is not None}
    settings = {"model_max_length": context_length, "padding_side": "right", "truncation_side": "right"}
    settings |= {"model_input_names": ["input_ids", "attention_mask"], "clean_up_tokenization_spaces": False}
    classes = {"tokenizer_class": "PreTrainedTokenizerFast", "processor_class": processor}
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


def write_preprocessing(folder: Path, image: ImageSpec, *, processor: str) -> None:
    """Writes `preprocessor_config.json`: resizing, centre crop, scaling to [0, 1], mean and standard deviation."""
    square = {"height": image.size, "width": image.size}
    content = {
        "image_processor_type": "CLIPImageProcessor",
        "processor_class": processor,
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": image.size} if image.fit == "crop" else square,
        "resample": int(FILTERS[image.resize]),
        "do_center_crop": image.fit == "crop",
        "crop_size": square,
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
    steps = ("do_resize", "do_rescale", "do_normalize")
    problems = [f"{step} is false, expected true" for step in steps if not config.get(step, True)]
    problems += [f"no {key}" for key in ("image_mean", "image_std") if key not in config]
    # Old folders have one number where newer ones have the names of the sides.
    size, crop = (
        {name: value} if isinstance(value := config.get(key), int) else value or {}
        for key, name in (("size", "shortest_edge"), ("crop_size", "height"))
    )
    cropped = config.get("do_center_crop", True)
    whole = size.get("shortest_edge") is not None
    sides = {value for value in (*size.values(), *(crop.values() if cropped else ())) if value is not None}
    if len(sides) != 1 or (whole and not cropped):
        problems.append(f"size {size} and crop_size {crop if cropped else None}, expected a square of one side")
    filters = {int(number): name for name, number in FILTERS.items()}
    resample = config.get("resample", int(FILTERS["bicubic"]))
    if resample not in filters:
        problems.append(f"resample is {resample}, expected one of {filters}")
    factor = config.get("rescale_factor", 1 / 255)
    if abs(factor * 255 - 1) > 1e-6:
        problems.append(f"rescale_factor is {factor}, expected 1/255")
    if problems:
        raise ConversionError(f"cannot take over the preprocessing of {folder}", problems)
    mean, std = tuple(config["image_mean"]), tuple(config["image_std"])
    return ImageSpec(sides.pop(), mean, std, resize=filters[resample], fit="crop" if whole else "squash")
