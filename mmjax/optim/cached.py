"""Exact gradients of losses that compare all examples of a batch, in the activation memory of one chunk."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Embed = Callable[[Any, Any, jax.Array], Any]


def cached_value_and_grad(
    embed: Embed, loss: Callable[[Any, Any, Any, jax.Array], Any], *, chunk: int, has_aux: bool = False
) -> Callable[[Any, Any, jax.Array], tuple[Any, Any]]:
    """Value and gradient of `loss(embed(batch))` for any loss, whatever it makes of the whole batch's embeddings.

    `dL/dp = d loss(p, E)/dp + sum_c (d embed_c(p)/dp)^T (d loss(p, E)/dE)_c`, where E are the embeddings of all
    chunks c

    1. E is computed chunk by chunk, without a gradient. 2. The loss is differentiated with respect to E, the cache,
    and to its own use of the parameters. 3. Each chunk is embedded again and pulls its slice of the cache back.
    The towers run forward twice and hold the activations of one chunk. What the loss holds, such as `[B, B]` logits,
    stays: that is what losses over blocks are for.

    It is the gradient of the whole batch, not an approximation, if `embed` treats every example apart. Batch
    normalisation with statistics of the batch does not: a chunk would be normalised by itself, and the result would
    be that of no batch at all. Freeze its statistics, or normalise over features. Whatever else mixes examples
    belongs to `loss`.

    Random numbers are the same in both passes: chunk i is embedded with `fold_in(rng, i)`. With dropout the result
    equals that of the whole batch embedded with the same key for each chunk; without, that of the whole batch.

    Chunk i holds every n-th of the first n * chunk examples, from example i on, n = B // chunk, so that a batch
    sharded over devices stays evenly spread; examples left at the end are a shorter chunk n. On d devices, choose a
    multiple of d that divides B. A chunk of B or more is the plain gradient, with one forward.

    Args:
      embed: `(params, batch, rng) -> embeddings`, trees of arrays with the examples of the batch along their first
        axis: embeddings of several towers, tokens and their masks, or values of losses that need one example only.
        Leaves that are not floating, and those behind a `stop_gradient`, carry no gradient and are not pulled back.
      loss: `(params, embeddings, batch, rng) -> value`, or `(value, aux)` with `has_aux`, on the whole batch in its
        order; `params` for its direct uses such as a scale, `rng` as it came.
      chunk: examples embedded at once, at least 1; it need not divide B.
      has_aux: whether the loss returns a pair.

    Returns:
      `(params, batch, rng) -> (value, grads)`, or `((value, aux), grads)` with `has_aux`. The chunks' gradients are
      summed in float32 and have the dtypes of the parameters.

    Raises:
      ValueError: chunk is below 1, or (when called) leaves of the batch differ in their first axis, or `embed`
        returned a leaf without it.

    >>> def embed(w, batch, rng): return w * batch["x"]
    >>> def loss(w, embeds, batch, rng): return jnp.sum(embeds) ** 2  # over all pairs of examples
    >>> value, grads = cached_value_and_grad(embed, loss, chunk=2)(2.0, {"x": jnp.arange(4.0)}, jax.random.key(0))
    >>> float(value), float(grads)
    (144.0, 144.0)

    Reference:
      Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", RepL4NLP 2021, section
      3.2; luyug/GradCache at e4234c9, `cachex`. Here for any tree of embeddings, and losses with parameters.
    """
    if chunk < 1:
        raise ValueError(f"cached_value_and_grad: chunk is {chunk}, expected at least 1")

    def embed_chunk(params: Any, part: Any, rng: jax.Array, index: Any) -> Any:
        embeddings = embed(params, part, jax.random.fold_in(rng, index))
        _check_first_axis("embed returned embeddings", embeddings, _size(part))
        return embeddings

    def fn(params: Any, batch: Any, rng: jax.Array) -> tuple[Any, Any]:
        batch = jax.tree.map(jnp.asarray, batch)
        size = _size(batch)
        _check_first_axis("batch", batch, size)
        if chunk >= size:
            whole = lambda params: loss(params, embed_chunk(params, batch, rng, 0), batch, rng)  # noqa: E731
            return jax.value_and_grad(whole, has_aux=has_aux)(params)
        count = size // chunk
        even, rest = _split(batch, count, chunk)

        # 1. The embeddings, in the order of the batch.
        embeddings = lax.map(lambda i: embed_chunk(params, _take(even, i), rng, i), jnp.arange(count))
        embeddings = jax.tree.map(_in_order, embeddings)
        if size % chunk:
            last = embed_chunk(params, rest, rng, count)
            embeddings = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), embeddings, last)

        # 2. The loss, and its gradient with respect to the floating ones among them.
        leaves, tree = jax.tree.flatten(embeddings)
        moving = [n for n, leaf in enumerate(leaves) if _is_floating(leaf)]

        def of_moving(params: Any, values: list[jax.Array]) -> Any:
            replaced = dict(zip(moving, values, strict=True))
            return loss(params, tree.unflatten([replaced.get(n, leaf) for n, leaf in enumerate(leaves)]), batch, rng)

        differentiate = jax.value_and_grad(of_moving, argnums=(0, 1), has_aux=has_aux)
        result, (direct, cache) = differentiate(params, [leaves[n] for n in moving])

        # 3. Each chunk again, with its part of the cache.
        def add(total: Any, part: Any, cotangents: list[jax.Array], index: Any) -> Any:
            def moving_embeddings(params: Any) -> list[jax.Array]:
                again = jax.tree.leaves(embed_chunk(params, part, rng, index))
                return [again[n] for n in moving]

            (grads,) = jax.vjp(moving_embeddings, params)[1](cotangents)
            return jax.tree.map(lambda t, g: t + g.astype(t.dtype), total, grads)

        total = jax.tree.map(lambda g: g.astype(jnp.promote_types(g.dtype, jnp.float32)), direct)
        even_cache, rest_cache = _split(cache, count, chunk)
        if size % chunk:
            total = add(total, rest, rest_cache, count)
        total, _ = lax.scan(
            lambda total, i: (add(total, _take(even, i), _take(even_cache, i), i), None), total, jnp.arange(count)
        )
        return result, jax.tree.map(lambda t, g: t.astype(g.dtype), total, direct)

    return fn


def _split(tree: Any, count: int, chunk: int) -> tuple[Any, Any]:
    """Leaves `[B, ...]` as `[chunk, count, ...]`, chunk i at index i of the second axis, and the remainder.

    The chunks are not stacked along the first axis: that would be a transposed copy of the whole batch.
    """
    even = jax.tree.map(lambda leaf: leaf[: count * chunk].reshape(chunk, count, *leaf.shape[1:]), tree)
    return even, jax.tree.map(lambda leaf: leaf[count * chunk :], tree)


def _take(even: Any, index: jax.Array) -> Any:
    return jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, index, axis=1, keepdims=False), even)


def _in_order(stacked: jax.Array) -> jax.Array:
    """[count, chunk, ...] -> [count * chunk, ...], the inverse of taking strided chunks."""
    return jnp.swapaxes(stacked, 0, 1).reshape(-1, *stacked.shape[2:])


def _size(batch: Any) -> int:
    leaves = jax.tree.leaves(batch)
    if not leaves or leaves[0].ndim == 0:
        raise ValueError("cached_value_and_grad: the batch has no array with a first axis of examples")
    return leaves[0].shape[0]


def _check_first_axis(what: str, tree: Any, size: int) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.shape(leaf)[:1] != (size,):
            raise ValueError(
                f"cached_value_and_grad: {what}{jax.tree_util.keystr(path)} has shape {jnp.shape(leaf)}, expected "
                f"{size} examples along the first axis; what belongs to no example goes into params or the loss"
            )


def _is_floating(leaf: jax.Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.inexact)
