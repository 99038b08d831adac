"""Prefix tuning: learned keys and values in front of those of every attention."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmjax._checks import check_rank
from mmjax.intercept import Call, insert
from mmjax.ops import attend, attention_probabilities
from mmjax.peft.adapter import Adapter, Apply, Params, base_of, cannot_merge, check_call
from mmjax.peft.arguments import arguments_of, replace_arguments
from mmjax.peft.layers import blocks_of, node_at, num_layers, place_in_layers
from mmjax.peft.prompts import insert_prompts


class PrefixEncoder(nn.Module):
    """Keys and values of a learned prefix, for every layer.

    They are the table e `[n, L * 2 * N * H]`, or made of a smaller one: `e = proj_1(tanh(proj_0(embedding)))`. Of e's
    last axis layers come first, then key and value, then heads.

    Parameters `embedding` `[n, L * 2 * N * H]`, or `[n, N * H]` with `proj_0`, `proj_1`.

    Attributes:
      num_virtual_tokens: n.
      num_layers: L.
      num_heads: N.
      head_dim: H.
      encoder_hidden: width between the projections; 0 = no projections.

    Reference:
      Li and Liang, "Prefix-Tuning: Optimizing Continuous Prompts for Generation", ACL 2021, section 4.3;
      huggingface/peft 0.21.2.
    """

    num_virtual_tokens: int
    num_layers: int
    num_heads: int
    head_dim: int
    encoder_hidden: int = 0

    @nn.compact
    def __call__(self, batch_size: int = 1) -> dict[str, jax.Array]:
        """`keys` and `values`, each `[L, batch_size, N, n, H]`."""
        width = self.num_heads * self.head_dim
        full = self.num_layers * 2 * width
        shape = (self.num_virtual_tokens, width if self.encoder_hidden else full)
        e = self.param("embedding", nn.initializers.normal(1.0), shape)
        if self.encoder_hidden:
            hidden = jnp.tanh(nn.Dense(self.encoder_hidden, name="proj_0")(e))
            e = nn.Dense(full, name="proj_1")(hidden)
        e = e.reshape(-1, self.num_layers, 2, self.num_heads, self.head_dim).transpose(2, 1, 3, 0, 4)
        keys, values = jnp.broadcast_to(e[:, :, None], (*e.shape[:2], batch_size, *e.shape[2:]))
        return {"keys": keys, "values": values}


def prefix_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    prefix_key: jax.Array,
    prefix_value: jax.Array,
    *,
    causal: bool = False,
) -> jax.Array:
    """Scaled dot-product attention with a prefix of keys and values, which every query sees.

    Args:
      query, key, value: `[B, T, N, H]`.
      prefix_key, prefix_value: `[N, P, H]`, the same for every example.
      causal: whether a query sees the keys up to its own position only, beside the prefix.

    Returns:
      `[B, T, N, H]`.

    >>> one = jnp.ones((1, 1, 1, 1))
    >>> prefix_attention(one, one, one, one[0], 3 * one[0]).item()
    2.0

    Reference:
      Li and Liang, "Prefix-Tuning: Optimizing Continuous Prompts for Generation", ACL 2021, equation 3.
    """
    check_rank("prefix_attention", rank=4, query=query, key=key, value=value)
    length = query.shape[1]
    mask = jnp.tril(jnp.ones((1, 1, length, length), bool)) if causal else None
    keys, values = (
        insert_prompts(x.reshape(*x.shape[:2], -1), _side_by_side(prefix), num_prefix=0).reshape(
            x.shape[0], -1, *x.shape[2:]
        )
        for x, prefix in ((key, prefix_key), (value, prefix_value))
    )
    query, keys, values = (x.swapaxes(1, 2) for x in (query, keys, values))
    mask = _show_prefix(mask, prefix_key.shape[1])
    return attend(attention_probabilities(query, keys, mask=mask), values).swapaxes(1, 2)


def prefix_tuning(num_virtual_tokens: int = 20, *, encoder_hidden: int = 0, encoder: str = "encoder") -> Adapter:
    """Learned keys and values in front of those of each block's attention, seen by every query.

    Parameters `prompt`, those of a `PrefixEncoder`. With `encoder_hidden` the table is made by two projections, which
    train more steadily; `collapse_prefix` leaves them out in the end.

    Args:
      num_virtual_tokens: length of the prefix.
      encoder_hidden: width between the projections; 0 = no projections.
      encoder: path of the stack of blocks, in each of which `attn` has `key` and `value`.

    Returns:
      The adapter; it does not merge.

    Reference:
      Li and Liang, "Prefix-Tuning: Optimizing Continuous Prompts for Generation", ACL 2021.
    """

    def init(rng: jax.Array, apply: Apply, params: Params, *example: Any, **kwargs: Any) -> dict[str, Any]:
        module = _encoder(base_of(params), encoder, num_virtual_tokens, encoder_hidden)
        tree = {"prompt": module.init(rng)["params"]}
        check_call(wrap(apply), params, tree, *example, **kwargs)
        return tree

    def wrap(apply: Apply) -> Callable[..., Any]:
        def adapted(params: Params, adapter_params: Params, *args: Any, **kwargs: Any) -> Any:
            prefixes = _prefixes(base_of(params), encoder, adapter_params["prompt"])
            leaves = {f"attn/{name}/prefix": prefix for name, prefix in prefixes.items()}
            tree = place_in_layers("prefix_tuning", base_of(params), encoder, leaves)
            attention = f"{encoder}/block*/attn"
            branches = {f"{attention}:args": show, f"{attention}/{{key,value}}": prepend}
            return insert(apply, branches, tree)(params, *args, **kwargs)

        return adapted

    def show(own: Params, arguments: Any, call: Call) -> Any:
        mask = arguments_of(call).get("mask")
        count = len(own["key"]["prefix"])
        return arguments if mask is None else replace_arguments(call, mask=_show_prefix(mask, count))

    def prepend(own: Params, tokens: jax.Array, call: Call) -> jax.Array:
        return insert_prompts(tokens, own["prefix"], num_prefix=0)

    reason = "a prefix is no parameter of the model"
    patterns = (f"{encoder}/block*/attn:args", f"{encoder}/block*/attn/{{key,value}}")
    return Adapter(init, wrap, cannot_merge("prefix_tuning", reason), "prefix_tuning", patterns)


def collapse_prefix(params: Params, adapter_params: Params, *, encoder: str = "encoder") -> dict[str, Any]:
    """The parameters of `prefix_tuning` with the table alone, in place of the projections that make it.

    Args:
      params: of the model.
      adapter_params: of the adapter.
      encoder: path of the stack of blocks.
    """
    prefixes = _prefixes(base_of(params), encoder, adapter_params["prompt"])
    table = jnp.stack([prefixes["key"], prefixes["value"]], axis=1)  # [L, 2, n, D]
    return {"prompt": {"embedding": table.transpose(2, 0, 1, 3).reshape(table.shape[2], -1)}}


def _encoder(base: Params, encoder: str, num_virtual_tokens: int, encoder_hidden: int) -> PrefixEncoder:
    layers = num_layers("prefix_tuning", base, encoder)
    first = blocks_of("prefix_tuning", base, encoder)[0]
    width = node_at("prefix_tuning", base, f"{first}/attn/key")["kernel"].shape[-1]
    # One head as wide as all: heads are contiguous, and the attention splits keys and values itself.
    return PrefixEncoder(num_virtual_tokens, layers, 1, width, encoder_hidden)


def _prefixes(base: Params, encoder: str, own: Params) -> Mapping[str, jax.Array]:
    """The rows before keys and values of each layer, `[L, n, D]`."""
    hidden = own["proj_0"]["kernel"].shape[1] if "proj_0" in own else 0
    found: Any = _encoder(base, encoder, own["embedding"].shape[0], hidden).apply({"params": own})
    return {"key": found["keys"][:, 0, 0], "value": found["values"][:, 0, 0]}


def _side_by_side(prefix: jax.Array) -> jax.Array:
    """Heads `[N, P, H]` to `[P, N * H]`."""
    return prefix.swapaxes(0, 1).reshape(prefix.shape[1], -1)


def _show_prefix(mask: jax.Array | None, count: int) -> jax.Array | None:
    """A mask of keys, True for as many more in front."""
    return None if mask is None else jnp.pad(mask, [(0, 0)] * (mask.ndim - 1) + [(count, 0)], constant_values=True)
