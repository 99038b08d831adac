"""LoRA with rsLoRA and DoRA, on linear layers, attention kernels, convolutions and embeddings."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmjax.intercept import Call, Target
from mmjax.ops import at_least_float32
from mmjax.paths import flatten, suggestion
from mmjax.peft.adapter import Adapter, Params
from mmjax.peft.branch import Branch, make_adapter
from mmjax.peft.low_rank import column_norms, dora_rescaling, expand, lora_scale, low_rank_branch, merge_low_rank

ATTENTION = "**/block*/attn/{query,value}"


def lora(
    targets: str | Sequence[str] | Mapping[str, Mapping[str, Any]] = ATTENTION,
    *,
    rank: int = 8,
    alpha: float | None = None,
    rslora: bool = False,
    dora: bool = False,
    dropout: float = 0.0,
) -> Adapter:
    """Low-rank updates of kernels: `value + s (x a) b`, which is the kernel `W + s a b`.

    Parameters at each target: `a` `[in, r]`, `b` `[r, out]`, with DoRA also `m` `[out]`; axes of multi-axis kernels are
    flattened into two, a convolution's `a` is `[kh, kw, in, r]`, an embedding's `[V, r]`. A model is unchanged at the
    start. The learning rate of LoRA+ is `mmjax.optim.lora_plus`, or in a config the rule `("**/b", {"rate": 16})`.

    Args:
      targets: patterns of `Dense`, `DenseGeneral`, `Conv` or `Embed` modules; or pattern -> settings there, by the
        names below, that differ from the others'. The first that matches a module claims it.
      rank: r.
      alpha: gives `s = alpha / rank`; None = 2 rank.
      rslora: whether `s = alpha / sqrt(rank)`.
      dora: whether directions and magnitudes are learned apart, see `dora_linear`. It measures the kernel of the model:
        in a chain it comes before what else acts on the same kernel. Not for embeddings.
      dropout: share of the inputs that the branch loses in training, when `apply` is given `rngs={"dropout": key}`.

    Returns:
      The adapter.

    Raises:
      ValueError: at init, a target is of another kind; the message lists what is below it.

    >>> from mmjax.models import TextTransformer
    >>> model = TextTransformer(vocab_size=7, context_length=4, width=8, num_layers=2, num_heads=2, output_dim=3)
    >>> ids = jnp.array([[1, 5, 6, 0]])
    >>> variables = model.init(jax.random.key(0), ids)
    >>> adapter = lora({"**/attn/query": {"rank": 2}, "encoder/block_1/mlp/{fc1,fc2}": {}}, rank=4, dora=True)
    >>> params = adapter.init(jax.random.key(1), model.apply, variables, ids)
    >>> {name: leaf.shape for name, leaf in params["encoder"]["block_1"]["mlp"]["fc1"].items()}
    {'a': (8, 4), 'b': (4, 32), 'm': (32,)}

    Reference:
      Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022; Liu et al., "DoRA: Weight-Decomposed
      Low-Rank Adaptation", ICML 2024; huggingface/peft 0.21.2.
    """
    common: dict[str, Any] = {"rank": rank, "alpha": alpha, "rslora": rslora, "dora": dora, "dropout": dropout}
    patterns = (targets,) if isinstance(targets, str) else targets
    own = patterns if isinstance(patterns, Mapping) else {pattern: {} for pattern in patterns}
    for pattern, settings in own.items():
        for name in settings:
            if name not in common:
                raise ValueError(f"lora: {pattern!r} has the setting {name!r}; {suggestion(name, common)}")
    return make_adapter("lora", {pattern: _branch(**common | dict(settings)) for pattern, settings in own.items()})


def _branch(*, rank: int, alpha: float | None, rslora: bool, dora: bool, dropout: float) -> Branch:
    if rank < 1 or not 0.0 <= dropout < 1.0:
        raise ValueError(f"lora: rank is {rank} and dropout {dropout}, expected 1 or more and a share in [0, 1)")
    scale = lora_scale(alpha=2 * rank if alpha is None else alpha, rank=rank, rslora=rslora)

    def init(rng: jax.Array, target: Target, base: Params) -> dict[str, jax.Array]:
        module = target.module
        kernel = _kernel(target.path, module, base)
        if isinstance(module, nn.Embed):
            if dora:
                raise ValueError(f"lora: {target.path!r} is an Embed, for which there is no DoRA; leave it out")
            return {"a": jnp.zeros((kernel.shape[0], rank)), "b": jax.random.normal(rng, (rank, kernel.shape[1]))}
        inputs, out = _sizes(module, kernel)
        bound = 1 / math.sqrt(math.prod(inputs))
        a = jax.random.uniform(rng, (*inputs, rank), minval=-bound, maxval=bound)
        magnitude = {"m": column_norms(kernel, out)} if dora else {}
        return {"a": a, "b": jnp.zeros((rank, out)), **magnitude}

    def apply(params: Params, value: jax.Array, call: Call, rng: jax.Array | None = None) -> jax.Array:
        module, x = call.module, call.input
        if isinstance(module, nn.Embed):
            return _add(value, expand(params["a"][x], params["b"], scale=scale))
        x = x if rng is None else _drop(x, rng, dropout)
        if isinstance(module, nn.Conv):
            rank = params["b"].shape[0]  # which grows when pairs are added up (`combine`)
            narrow = module.clone(features=rank, use_bias=False, dtype=jnp.float32, parent=None, name=None)
            branch = expand(call.apply(narrow, {"kernel": params["a"]}, x), params["b"], scale=scale)
        else:
            flat = x.reshape(*x.shape[: x.ndim - _num_inputs(module)], -1)
            branch = low_rank_branch(flat, params["a"], params["b"], scale=scale).reshape(value.shape)
        if not dora:
            return _add(value, branch)
        base = module.variables["params"]
        rescaling = dora_rescaling(base["kernel"], params["a"], params["b"], params["m"], scale=scale)
        bias = base.get("bias", jnp.zeros(()))
        linear = at_least_float32(value) - bias + branch
        return (linear * rescaling.reshape(value.shape[value.ndim - _num_outputs(module) :]) + bias).astype(value.dtype)

    def attend(params: Params, value: jax.Array, call: Call, rng: jax.Array | None = None) -> jax.Array:
        """`query (embedding + s a b)^T`, where an embedding also gives the logits."""
        return _add(value, low_rank_branch(call.input, params["b"].T, params["a"].T, scale=scale))

    def merge(base: Params, params: Params) -> dict[str, jax.Array]:
        name = "embedding" if "embedding" in base else "kernel"
        magnitude = params["m"] if dora else None
        return {name: merge_low_rank(base[name], params["a"], params["b"], scale=scale, magnitude=magnitude)}

    def unmerge(base: Params, params: Params) -> dict[str, jax.Array]:
        name = "embedding" if "embedding" in base else "kernel"
        return {name: merge_low_rank(base[name], params["a"], params["b"], scale=-scale)}

    undo = None if dora else unmerge
    return Branch(init, apply, merge, undo, random=dropout > 0.0, ports={"attend": attend})


def _kernel(path: str, module: nn.Module, base: Params) -> jax.Array:
    kinds = (nn.Dense, nn.DenseGeneral, nn.Conv, nn.Embed)
    if not isinstance(module, kinds):
        below = sorted({leaf.rpartition("/")[0] for leaf in flatten(base) if leaf.endswith(("/kernel", "/embedding"))})
        listed = ", ".join(below) if below else "none"
        raise ValueError(
            f"lora: {path!r} is a {type(module).__name__}, expected {', '.join(kind.__name__ for kind in kinds)}; "
            f"below it: {listed}"
        )
    if isinstance(module, nn.Conv) and module.feature_group_count > 1:
        raise ValueError(f"lora: {path!r} has feature_group_count {module.feature_group_count}, expected 1")
    if isinstance(module, nn.DenseGeneral) and module.batch_dims:
        raise ValueError(f"lora: {path!r} has batch_dims {module.batch_dims}, expected none")
    return base["embedding"] if isinstance(module, nn.Embed) else base["kernel"]


def _sizes(module: nn.Module, kernel: jax.Array) -> tuple[tuple[int, ...], int]:
    """The input axes of `a`, and the number of outputs."""
    if isinstance(module, nn.Conv):
        return kernel.shape[:-1], kernel.shape[-1]
    split = _num_inputs(module)
    return (math.prod(kernel.shape[:split]),), math.prod(kernel.shape[split:])


def _num_inputs(module: nn.Module) -> int:
    axis = module.axis if isinstance(module, nn.DenseGeneral) else -1
    return 1 if isinstance(axis, int) else len(axis)


def _num_outputs(module: nn.Module) -> int:
    features: Any = module.features
    return 1 if isinstance(features, int) else len(features)


def _add(value: jax.Array, branch: jax.Array) -> jax.Array:
    return (at_least_float32(value) + branch).astype(value.dtype)


def _drop(x: jax.Array, rng: jax.Array, rate: float) -> jax.Array:
    return jnp.where(jax.random.bernoulli(rng, 1 - rate, x.shape), x / (1 - rate), 0)
