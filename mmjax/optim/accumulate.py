"""Gradient accumulation over micro-batches."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

ValueAndGrad = Callable[[Any, Any, jax.Array], tuple[tuple[jax.Array, Any], Any]]


def accumulate_gradients(value_and_grad_fn: ValueAndGrad, micro_batches: int) -> ValueAndGrad:
    """The mean of loss, metrics and gradient over micro-batches, one after the other in the memory of one.

    `(1 / n) sum_i fn(params, batch[i::n], fold_in(rng, i))`

    It equals the full batch for a loss that is a mean over examples. It does not for a contrastive loss:
    examples are then contrasted within their micro-batch only, with fewer negatives.

    Micro-batch i takes every n-th example from the i-th on, so that a batch sharded over devices stays evenly
    spread.

    Args:
      value_and_grad_fn: `(params, batch, rng) -> ((loss, aux), grads)`, as of
        `jax.value_and_grad(loss, has_aux=True)`.
      micro_batches: n, at least 1.

    Returns:
      A function of the same signature; `batch` is a tree of arrays `[B, ...]`, and n divides B. Sums are in
      float32. Floating leaves of `aux` are averaged, others are those of the last micro-batch. With n = 1 it
      is `value_and_grad_fn` itself.

    Raises:
      ValueError: n is below 1 or (when called) does not divide a leaf of the batch.

    >>> def loss(w, batch, rng): return jnp.mean((w * batch["x"]) ** 2), {"mean_x": jnp.mean(batch["x"])}
    >>> gradient = accumulate_gradients(jax.value_and_grad(loss, has_aux=True), 2)
    >>> (value, aux), grads = gradient(2.0, {"x": jnp.arange(4.0)}, jax.random.key(0))
    >>> float(value), float(aux["mean_x"]), float(grads)
    (14.0, 1.5, 14.0)
    """
    if micro_batches < 1:
        raise ValueError(f"accumulate_gradients: micro_batches is {micro_batches}, expected at least 1")
    if micro_batches == 1:
        return value_and_grad_fn

    def fn(params: Any, batch: Any, rng: jax.Array) -> tuple[tuple[jax.Array, Any], Any]:
        parts = jax.tree.map_with_path(lambda path, leaf: _cut(path, leaf, micro_batches), batch)
        first = jax.tree.map(lambda leaf: leaf[0], parts)
        shapes = jax.eval_shape(value_and_grad_fn, params, first, rng)

        def add(total: Any, numbered: tuple[jax.Array, Any]) -> tuple[Any, None]:
            index, part = numbered
            result = value_and_grad_fn(params, part, jax.random.fold_in(rng, index))
            return jax.tree.map(lambda t, r: t + r.astype(t.dtype) if _is_float(t) else r, total, _arrays(result)), None

        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, _wide(s)), shapes)
        total, _ = lax.scan(add, zeros, (jnp.arange(micro_batches), parts))
        return jax.tree.map(lambda t, s: (t / micro_batches).astype(s.dtype) if _is_float(s) else t, total, shapes)

    return fn


def _cut(path: Any, leaf: Any, count: int) -> jax.Array:
    """[B, ...] -> [count, B / count, ...], strided."""
    leaf = jnp.asarray(leaf)
    if leaf.ndim == 0 or leaf.shape[0] % count:
        raise ValueError(
            f"accumulate_gradients: batch{jax.tree_util.keystr(path)} has shape {leaf.shape}, "
            f"not divisible into {count} micro-batches; choose a batch size that is a multiple of {count}"
        )
    return jnp.swapaxes(leaf.reshape(leaf.shape[0] // count, count, *leaf.shape[1:]), 0, 1)


def _arrays(tree: Any) -> Any:
    return jax.tree.map(jnp.asarray, tree)


def _is_float(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def _wide(leaf: Any) -> Any:
    return jnp.promote_types(leaf.dtype, jnp.float32) if _is_float(leaf) else leaf.dtype
