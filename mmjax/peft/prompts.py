"""Prompts among tokens, on arrays: inserted, replaced, and CoOp's context around class names."""

import jax
import jax.numpy as jnp

from mmjax._checks import check_choice, check_rank


def insert_prompts(tokens: jax.Array, prompts: jax.Array, *, num_prefix: int = 1) -> jax.Array:
    """Prompts between the first tokens and the others, the same for every example.

    Args:
      tokens: `[B, T, D]`.
      prompts: `[P, D]`.
      num_prefix: tokens in front of the prompts.

    Returns:
      `[B, T + P, D]`, the dtype of `tokens`.

    >>> insert_prompts(jnp.array([[[1.0], [2.0]]]), jnp.array([[9.0]])).ravel().tolist()
    [1.0, 9.0, 2.0]

    Reference:
      Jia et al., "Visual Prompt Tuning", ECCV 2022, equation 4.
    """
    check_rank("insert_prompts", rank=3, tokens=tokens)
    return jnp.concatenate([tokens[:, :num_prefix], _repeat(prompts, tokens), tokens[:, num_prefix:]], axis=1)


def replace_prompts(tokens: jax.Array, prompts: jax.Array, *, num_prefix: int = 1) -> jax.Array:
    """Prompts in place of the tokens that follow the first ones.

    Args:
      tokens: `[B, T, D]`.
      prompts: `[P, D]`.
      num_prefix: tokens in front of the prompts.

    Returns:
      `[B, T, D]`, the dtype of `tokens`.

    >>> replace_prompts(jnp.array([[[1.0], [2.0], [3.0]]]), jnp.array([[9.0]])).ravel().tolist()
    [1.0, 9.0, 3.0]

    Reference:
      Jia et al., "Visual Prompt Tuning", ECCV 2022, equation 6.
    """
    others = remove_prompts(tokens, prompts.shape[0], num_prefix=num_prefix)
    return insert_prompts(others, prompts, num_prefix=num_prefix)


def remove_prompts(tokens: jax.Array, count: int, *, num_prefix: int = 1) -> jax.Array:
    """`[B, T + count, D]` without the `count` tokens that follow the first ones."""
    return jnp.concatenate([tokens[:, :num_prefix], tokens[:, num_prefix + count :]], axis=1)


def coop_prompt(
    context: jax.Array,
    prefix: jax.Array,
    suffix: jax.Array,
    *,
    name_lengths: jax.Array,
    class_token_position: str = "end",
) -> jax.Array:
    """The token embeddings of class prompts with a learned context, for a text tower behind its token embedding.

    "end": prefix, context, name, rest; "middle": prefix, first half of the context, name, second half, rest; "front":
    prefix, name, context, rest. The suffix holds name and rest.

    Args:
      context: `[n, D]`, shared by the classes, or `[K, n, D]`.
      prefix: `[K, 1, D]`, embedding of the start token.
      suffix: `[K, S, D]`, embeddings of the name, full stop, end token and padding.
      name_lengths: `[K]` integers, tokens of each name.
      class_token_position: "end", "middle" or "front".

    Returns:
      `[K, 1 + n + S, D]`.

    >>> context, prefix = jnp.array([[8.0], [9.0]]), jnp.array([[[0.0]]])
    >>> suffix, lengths = jnp.array([[[1.0], [2.0], [3.0]]]), jnp.array([1])
    >>> coop_prompt(context, prefix, suffix, name_lengths=lengths, class_token_position="middle").ravel().tolist()
    [0.0, 8.0, 1.0, 9.0, 2.0, 3.0]

    Reference:
      Zhou et al., "Learning to Prompt for Vision-Language Models", IJCV 2022, section 3.2; KaiyangZhou/CoOp at ff61507.
    """
    check_choice("coop_prompt", "class_token_position", class_token_position, ("end", "middle", "front"))
    classes, length = suffix.shape[:2]
    context = jnp.broadcast_to(context, (classes, *context.shape[-2:]))
    count = context.shape[1]
    before = {"end": count, "middle": count // 2, "front": 0}[class_token_position]
    # Where each token comes from: names differ in length, shapes must not.
    place = jnp.arange(count + length)
    names = jnp.reshape(name_lengths if before < count else jnp.zeros(classes, jnp.int32), (-1, 1))
    late = place >= before + names + (count - before)
    early = place < before
    in_name = ~early & (place < before + names)
    source = jnp.where(early, place, jnp.where(in_name, count + place - before, jnp.where(late, place, place - names)))
    tokens = jnp.take_along_axis(jnp.concatenate([context, suffix], axis=1), source[:, :, None], axis=1)
    return jnp.concatenate([prefix, tokens], axis=1)


def _repeat(prompts: jax.Array, tokens: jax.Array) -> jax.Array:
    return jnp.broadcast_to(prompts.astype(tokens.dtype), (tokens.shape[0], *prompts.shape))
