"""Small towers in every form of their layers, with parameters that are the same model."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.models import DualEncoder, TextTransformer, VisionTransformer, stack_layers

LAYERS, WIDTH = 2, 8
KINDS: dict[str, dict[str, Any]] = {
    "unrolled": {},
    "remat": {"remat": "full"},
    "scan": {"scan": True},
    "scan_remat": {"scan": True, "remat": "full"},
}
_SETTINGS = {"width": WIDTH, "num_layers": LAYERS, "num_heads": 2, "output_dim": 4, "mlp_ratio": 2.0}

IMAGES = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
IDS = np.array([[1, 5, 2, 6, 0], [3, 4, 6, 0, 0]], np.int32)
MASK = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]], bool)


def image_tower(kind: str = "unrolled", **settings: Any) -> VisionTransformer:
    return VisionTransformer(patch_size=4, image_size=8, **_SETTINGS | KINDS[kind] | settings)


def text_tower(kind: str = "unrolled", **settings: Any) -> TextTransformer:
    return TextTransformer(vocab_size=7, context_length=8, **_SETTINGS | KINDS[kind] | settings)


def dual_encoder(kind: str = "unrolled") -> DualEncoder:
    return DualEncoder(image=image_tower(kind), text=text_tower(kind))


def variables(model: Any, *inputs: Any, **kwargs: Any) -> dict[str, Any]:
    """Random parameters of an unrolled model, biases and norms among them."""
    return perturbed(jax.eval_shape(model.init, jax.random.key(0), *inputs, **kwargs), seed=1)


def perturbed(tree: Any, *, seed: int, scale: float = 0.3) -> Any:
    """The tree with normal numbers added, or in place of shapes."""
    rng = np.random.default_rng(seed)

    def one(leaf: Any) -> Any:
        noise = rng.normal(size=leaf.shape, scale=scale)
        start = 0.0 if isinstance(leaf, jax.ShapeDtypeStruct) else np.asarray(leaf, np.float32)
        return jnp.asarray(start + noise, leaf.dtype)

    return jax.tree.map(one, tree)


def in_form(kind: str, tree: Any) -> Any:
    """Parameters of an unrolled model, or of its adapter, for a model of this kind."""
    return stack_layers(tree) if KINDS[kind].get("scan") else tree
