"""Tiny dual encoders with random parameters."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from mmjax.convert import Bundle, select_towers
from mmjax.data import ImageSpec, Tokenizer, train_bpe
from mmjax.models import DualEncoder, TextTransformer, VisionTransformer
from tests.convert.random_params import with_random_params


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_bpe(["a small red circle left of a blue square", "two cats and a dog"] * 4, vocab_size=290)


@pytest.fixture(scope="session")
def tiny(tokenizer: Tokenizer) -> Callable[..., Bundle]:
    """`tiny(image={...}, text={...}, ...)`: a model that HF CLIP can express, but for what is overridden."""

    def build(
        *,
        image: dict[str, Any] | None = None,
        text: dict[str, Any] | None = None,
        spec: ImageSpec | None = None,
        towers: Sequence[str] = ("image", "text"),
        **both,
    ) -> Bundle:
        shared = {"num_layers": 2, "num_heads": 2, "output_dim": 12, **both}
        image = {"patch_size": 4, "width": 16, "image_size": 16} | shared | (image or {})
        text = {"vocab_size": tokenizer.vocab_size, "context_length": 14, "width": 8} | shared | (text or {})
        spec = spec or ImageSpec(image["image_size"])
        model = DualEncoder(VisionTransformer(**image), TextTransformer(**text))
        whole = Bundle(model, {}, tokenizer, spec, text["context_length"])
        return with_random_params(select_towers(whole, towers))

    return build
