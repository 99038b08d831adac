"""Tokenizers of open_clip: CLIP's BPE, which comes with the package, or a `tokenizer.json` after a cleaning of texts.

Reference: mlfoundations/open_clip 3.3.0, `tokenizer.py` and `get_tokenizer` in `factory.py`.
"""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Regex, normalizers

from mmjax.convert.errors import ConversionError
from mmjax.convert.formats._hf_siglip import read_siglip_tokenizer
from mmjax.convert.hf_folder import read_tokenizer
from mmjax.data import Tokenizer, clip_bpe

_VOCABULARY, _VOCAB_SIZE = "bpe_simple_vocab_16e6.txt.gz", 49408
_SPACES = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
# What each kind of cleaning does beside repairing characters (ftfy) and HTML entities, which the caller is left with.
_CLEANING: dict[str, list[Any]] = {
    "whitespace": [],
    "lower": [normalizers.NFC(), *_SPACES, normalizers.Lowercase()],
    "canonicalize": [
        normalizers.NFC(),
        normalizers.Replace("_", " "),
        normalizers.Replace(Regex(r"[!-/:-@\[-`{-~]"), ""),
        normalizers.Lowercase(),
        *_SPACES,
    ],
}


def read_open_clip_tokenizer(folder: Path, text_cfg: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that a `text_cfg` asks for; lower-casing and the removal of punctuation become part of it.

    Args:
      folder: of the weights. CLIP's vocabulary is looked for in it, then in the package `open_clip`; where neither has
        it or the text tower knows fewer words, the `tokenizer.json` of the folder counts.
      text_cfg: section of `open_clip_config.json`.

    Raises:
      ConversionError: the files are missing, or the cleaning has no counterpart.
    """
    settings = _settings(text_cfg)
    other = {name: value for name, value in settings.items() if value and name != "clean"}
    if text_cfg.get("tokenizer_mode"):
        other["tokenizer_mode"] = text_cfg["tokenizer_mode"]
    problems = [f"the tokenizer's {name} is {value!r}, which has no counterpart" for name, value in other.items()]
    named = bool(text_cfg.get("hf_tokenizer_name"))
    kinds = tuple(_CLEANING) if named else ("lower",)
    clean = settings.get("clean") or ("whitespace" if named else "lower")
    if clean not in kinds:
        problems.append(f"the tokenizer's clean is {clean!r}, expected one of {', '.join(map(repr, kinds))}")
    if problems:
        raise ConversionError(f"cannot take over the tokenizer of {folder}", problems)
    if not named:
        return _clip_tokenizer(folder, text_cfg.get("vocab_size", _VOCAB_SIZE))
    tokenizer = read_siglip_tokenizer(folder)  # Padding may count here too.
    backend, cleaning = tokenizer.backend, _CLEANING[clean]
    if cleaning:
        backend.normalizer = normalizers.Sequence([*cleaning, *([backend.normalizer] if backend.normalizer else [])])
    return tokenizer


def _clip_tokenizer(folder: Path, vocab_size: int) -> Tokenizer:
    """CLIP's words, from the folder or from the package, which is not imported for it; or those of the folder."""
    places = [folder]
    if vocab_size >= _VOCAB_SIZE and (package := importlib.util.find_spec("open_clip")) is not None:
        places += map(Path, package.submodule_search_locations or ())
    for place in places:
        if (place / _VOCABULARY).is_file():
            return clip_bpe(place / _VOCABULARY)
    try:
        return read_tokenizer(folder)
    except ConversionError:
        fix = f"copy {_VOCABULARY} of the package open_clip to it, or pip install open_clip_torch"
        raise ConversionError(f"cannot read {folder}", [f"no tokenizer.json; for CLIP's words {fix}"]) from None


def tokenize_by(
    tokenizer: Any, folder: Path, text_cfg: Mapping[str, Any]
) -> tuple[Callable[[Sequence[str], int], tuple[np.ndarray, np.ndarray]] | None, str]:
    """What open_clip's tokenizer makes of texts, for `Network.tokenize`, and what a reader of the report should know.

    Args:
      tokenizer: of open_clip; what follows the end token is padding.
      folder, text_cfg: what it was made for.
    """
    ours, about = read_open_clip_tokenizer(folder, text_cfg), type(tokenizer).__name__
    if not text_cfg.get("hf_tokenizer_name"):
        if ours.vocab_size != tokenizer.vocab_size:
            return None, f"{about}, whose words are not those of the model"
    elif not _CLEANING[_settings(text_cfg).get("clean") or "whitespace"]:
        tokenizer.clean_fn = str  # Which does nothing.
        about += " without what comes before it: white space is joined, characters and HTML entities are repaired"

    def tokenize(texts: Sequence[str], length: int) -> tuple[np.ndarray, np.ndarray]:
        ids = tokenizer(list(texts), context_length=length).numpy()
        return ids, np.arange(length) <= np.argmax(ids == ours.eos_id, axis=1)[:, None]

    return tokenize, about


def _settings(text_cfg: Mapping[str, Any]) -> Mapping[str, Any]:
    return text_cfg.get("tokenizer_kwargs") or {}
