"""Tiny dual encoders with random parameters."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.convert.formats.hf_clip import Imported
from mmjax.data import ImageSpec, Tokenizer, train_bpe
from mmjax.models import DualEncoder, TextTransformer, VisionTransformer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_bpe(["a small red circle left of a blue square", "two cats and a dog"] * 4, vocab_size=290)


def random_params(model: DualEncoder, size: int) -> dict[str, Any]:
    """Every leaf near its usual value, and none at it."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 3)), jnp.zeros((1, 2), int))
    rng = np.random.default_rng(0)

    def draw(path: Any, leaf: Any) -> jax.Array:
        centre = {"scale": 1.0, "log_scale": 2.5}.get(path[-1].key, 0.0)
        return jnp.asarray(centre + 0.2 * rng.standard_normal(leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes["params"])


@pytest.fixture(scope="session")
def tiny(tokenizer: Tokenizer) -> Callable[..., Imported]:
    """`tiny(image={...}, text={...}, ...)`: a model that HF CLIP can express, but for what is overridden."""

    def build(
        *,
        image: dict[str, Any] | None = None,
        text: dict[str, Any] | None = None,
        spec: ImageSpec | None = None,
        **both,
    ) -> Imported:
        towers = {"num_layers": 2, "num_heads": 2, "output_dim": 12, **both}
        image = {"patch_size": 4, "width": 16, "image_size": 16} | towers | (image or {})
        text = {"vocab_size": tokenizer.vocab_size, "context_length": 14, "width": 8} | towers | (text or {})
        spec = spec or ImageSpec(image["image_size"])
        model = DualEncoder(VisionTransformer(**image), TextTransformer(**text))
        return Imported(model, random_params(model, spec.size), tokenizer, spec, text["context_length"])

    return build
