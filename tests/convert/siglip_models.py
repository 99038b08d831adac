"""Tiny models that SigLIP's formats express, and their tokenizers."""

from typing import Any

from mmjax.convert import Bundle
from mmjax.data import ImageSpec, Tokenizer
from mmjax.models import DualEncoder, TextTransformer, VisionTransformer
from tests.convert.random_params import with_random_params
from tests.data.foreign_tokenizers import gemma, unigram

_IMAGE = {"pool": "map", "class_token": False, "pre_norm": False, "patch_bias": True, "output_dim": None}
_TEXT = {"pool": "last", "causal": False, "attend_padding": True, "proj_bias": True}


def siglip(
    kind: str = "unigram",
    *,
    image: dict[str, Any] | None = None,
    text: dict[str, Any] | None = None,
    spec: ImageSpec | None = None,
    **both: Any,
) -> Bundle:
    """The model, with the tokenizer "unigram" (padded with its end token, as SigLIP) or "gemma" (as SigLIP 2)."""
    backend, pad_id = {"unigram": (unigram(), 1), "gemma": (gemma(), 0)}[kind]
    tokenizer = Tokenizer(backend, bos_id=None, eos_id=1, pad_id=pad_id)
    shared = {"num_layers": 1, "num_heads": 2, "act": "gelu_tanh", "ln_eps": 1e-6, **both}
    image = {"patch_size": 4, "width": 16, "image_size": 8} | _IMAGE | shared | (image or {})
    text = {"vocab_size": tokenizer.vocab_size, "context_length": 12, "width": 8} | _TEXT | shared | (text or {})
    text = {"output_dim": image["width"]} | text
    spec = spec or ImageSpec(image["image_size"], (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), fit="squash")
    model = DualEncoder(VisionTransformer(**image), TextTransformer(**text), use_bias=True)
    return with_random_params(Bundle(model, {}, tokenizer, spec, text["context_length"]))
