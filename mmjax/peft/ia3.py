"""(IA)3: learned rescaling of keys, values and the inner activation of MLPs."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mmjax.intercept import Call, Target
from mmjax.ops import at_least_float32
from mmjax.peft.adapter import Adapter, Params
from mmjax.peft.branch import Branch, make_adapter


def ia3_linear(
    x: jax.Array, kernel: jax.Array, scale: jax.Array, *, feedforward: bool, bias: jax.Array | None = None
) -> dict[str, jax.Array | None]:
    """A linear layer with its input or its output rescaled.

    `value = (x scale) kernel + bias` with `feedforward`, else `(x kernel + bias) scale`

    Args:
      x: `[..., in]`.
      kernel: `[in, out]`.
      scale: `[in]` with `feedforward`, else `[out]`; initially ones.
      feedforward: whether the input is rescaled.
      bias: `[out]`.

    Returns:
      `value` `[..., out]`, `merged_kernel` `[in, out]`, `merged_bias` `[out]`, None without a bias.

    >>> ia3_linear(jnp.ones((1, 2)), jnp.eye(2), jnp.array([2.0, 3.0]), feedforward=True)["value"].tolist()
    [[2.0, 3.0]]

    Reference:
      Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning", NeurIPS
      2022, section 3.3; huggingface/peft 0.21.2, whose output sites rescale the bias too.
    """
    value = (_rescale(x, scale) if feedforward else x) @ kernel
    value = value if bias is None else value + bias
    merged = _merge({"kernel": kernel} | ({} if bias is None else {"bias": bias}), scale, feedforward=feedforward)
    return {
        "value": value if feedforward else _rescale(value, scale),
        "merged_kernel": merged["kernel"],
        "merged_bias": merged.get("bias"),
    }


def ia3(
    outputs: str | Sequence[str] = "**/block*/attn/{key,value}",
    inputs: str | Sequence[str] = "**/block*/mlp/{fc2,down}",
) -> Adapter:
    """(IA)3: a vector that multiplies what a linear layer returns, or what it reads. Starts from ones.

    Parameters `scale_out` `[out]` at each of `outputs`, `scale_in` `[in]` at each of `inputs`.

    Args:
      outputs: patterns of `Dense` modules whose output is rescaled.
      inputs: patterns of `Dense` modules whose input is.

    Returns:
      The adapter; it merges into kernels and biases.

    Reference:
      Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning", NeurIPS
      2022.
    """
    after, before = ((patterns,) if isinstance(patterns, str) else patterns for patterns in (outputs, inputs))
    branches = {pattern: _branch("scale_out") for pattern in after}
    return make_adapter("ia3", branches | {f"{pattern}:in": _branch("scale_in") for pattern in before})


def _branch(name: str) -> Branch:
    feedforward = name == "scale_in"

    def init(rng: jax.Array, target: Target, base: Params) -> dict[str, jax.Array]:
        if getattr(base.get("kernel"), "ndim", None) != 2:
            raise ValueError(f"ia3: {target.path!r} is a {type(target.module).__name__}, expected a Dense")
        return {name: jnp.ones(target.value.shape[-1])}

    def apply(params: Params, value: jax.Array, call: Call) -> jax.Array:
        return _rescale(value, params[name])

    def merge(base: Params, params: Params) -> dict[str, jax.Array]:
        return _merge(base, params[name], feedforward=feedforward)

    def unmerge(base: Params, params: Params) -> dict[str, jax.Array]:
        return _merge(base, 1 / params[name], feedforward=feedforward)

    return Branch(init, apply, merge, unmerge)


def _rescale(x: jax.Array, scale: jax.Array) -> jax.Array:
    return (at_least_float32(x) * scale).astype(x.dtype)


def _merge(base: Params, scale: jax.Array, *, feedforward: bool) -> dict[str, jax.Array]:
    if feedforward:
        return {**base, "kernel": base["kernel"] * scale[..., :, None]}
    return {name: leaf * (scale[..., None, :] if name == "kernel" else scale) for name, leaf in base.items()}
