"""A stack of three residual blocks, built in every way that Flax offers, and the same stack by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

LAYERS, WIDTH, HIDDEN = 3, 4, 5
KINDS = ("unrolled", "setup", "remat", "scan", "scan_remat", "scan_body")
STACKED = ("scan", "scan_remat", "scan_body")
AXES = {"params": 0, "intermediates": 0}


class Mlp(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(WIDTH, name="fc2")(jnp.tanh(nn.Dense(HIDDEN, name="fc1")(x)))


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x + Mlp(name="mlp")(x)


class Step(nn.Module):
    """A block as `nn.scan` wants its body."""

    @nn.compact
    def __call__(self, x, _):
        return x + Mlp(name="mlp")(x), None


class Layer(nn.Module):
    """A linear layer as `nn.scan` wants its body."""

    @nn.compact
    def __call__(self, x, _):
        return nn.Dense(WIDTH, use_bias=False, name="dense")(x), None


class Encoder(nn.Module):
    kind: str

    @nn.compact
    def __call__(self, x):
        scan = {"variable_axes": AXES, "split_rngs": {"params": True}, "length": LAYERS}
        match self.kind:
            case "scan":
                return nn.scan(Step, **scan)(name="blocks")(x, None)[0]
            case "scan_remat":
                return nn.scan(nn.remat(Step), **scan)(name="blocks")(x, None)[0]
            case "scan_body":
                return nn.scan(lambda block, x, _: (block(x), None), **scan)(nn.remat(Block)(name="blocks"), x, None)[0]
        block = nn.remat(Block) if self.kind == "remat" else Block
        for i in range(LAYERS):
            x = block(name=f"block_{i}")(x)
        return x


class SetupEncoder(nn.Module):
    def setup(self):
        self.block = [nn.remat(Block)() for _ in range(LAYERS)]

    def __call__(self, x):
        for block in self.block:
            x = block(x)
        return x


class Model(nn.Module):
    """`head(encoder(x))`."""

    kind: str

    def setup(self):
        self.encoder = SetupEncoder() if self.kind == "setup" else Encoder(self.kind)
        self.head = nn.Dense(2)

    def __call__(self, x):
        return self.head(self.encoder(x))


def inputs() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, WIDTH)).astype(np.float32)


def stacked() -> dict[str, Any]:
    """Parameters, the layers' with a leading axis."""
    rng = np.random.default_rng(1)

    def dense(rows, columns, *layers):
        shapes = {"kernel": (*layers, rows, columns), "bias": (*layers, columns)}
        return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}

    mlp = {"fc1": dense(WIDTH, HIDDEN, LAYERS), "fc2": dense(HIDDEN, WIDTH, LAYERS)}
    return {"encoder": {"blocks": {"mlp": mlp}}, "head": dense(WIDTH, 2)}


def variables(kind: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    """The stacked parameters as the model of this kind has them."""
    params = stacked() if params is None else params
    if kind in STACKED:
        return {"params": params}
    layers = params["encoder"]["blocks"]
    blocks = {f"block_{i}": jax.tree.map(lambda leaf, i=i: leaf[i], layers) for i in range(LAYERS)}
    return {"params": {**params, "encoder": blocks}}


def layer_values(kind: str, values: dict[str, Any], name: str) -> Any:
    """Tapped values of `name` in all layers, on one leading axis."""
    if kind in STACKED:
        return values[f"encoder/blocks/{name}"]
    return jnp.stack([values[f"encoder/block_{i}/{name}"] for i in range(LAYERS)])


def by_hand(params: dict[str, Any], x: Any, gate: Any = (1.0,) * LAYERS) -> tuple[Any, dict[str, Any]]:
    """Output and inner values of the model; `gate[i]` multiplies the MLP of layer i."""
    layers = params["encoder"]["blocks"]["mlp"]
    seen = {"mlp:in": [], "mlp/fc1": [], "mlp": []}
    for i in range(LAYERS):
        fc1 = x @ layers["fc1"]["kernel"][i] + layers["fc1"]["bias"][i]
        mlp = jnp.tanh(fc1) @ layers["fc2"]["kernel"][i] + layers["fc2"]["bias"][i]
        for name, value in (("mlp:in", x), ("mlp/fc1", fc1), ("mlp", mlp)):
            seen[name].append(value)
        x = x + gate[i] * mlp
    return x @ params["head"]["kernel"] + params["head"]["bias"], {name: jnp.stack(v) for name, v in seen.items()}
