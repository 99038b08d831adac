"""Prompt tuning of text towers: learned token embeddings in front of, or among, the words; CoOp's shared context."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.intercept import Call, insert
from mmjax.paths import unflatten
from mmjax.peft.adapter import Adapter, Apply, Params, base_of, cannot_merge, check_call
from mmjax.peft.arguments import arguments_of, replace_arguments
from mmjax.peft.layers import node_at
from mmjax.peft.prompts import replace_prompts


def prompt_tuning(
    num_prompts: int = 16,
    *,
    num_prefix: int = 1,
    init_ids: Sequence[int] = (),
    init_std: float = 0.02,
    tower: str = "",
    embedding: str = "token_embedding",
    mask: str = "text_mask",
) -> Adapter:
    """Learned embeddings of tokens that every text gets besides its own.

    The tower is given P tokens more, after the first `num_prefix`, and their embeddings are the prompts: positions,
    masks and pooling follow. With one token in front this is CoOp's shared context before the class name; with none,
    prompt tuning of language models. Texts may have P tokens less than the tower takes (`context_length`). Parameter
    `prompt/embedding` `[P, D]`.

    Args:
      num_prompts: P.
      num_prefix: tokens in front of the prompts.
      init_ids: ids of words to start from, such as those of "a photo of a", P of them; else normal numbers.
      init_std: standard deviation of these.
      tower: path of the tower; "" = the model itself.
      embedding: path of the embedding of tokens in the tower, whose first argument are the ids.
      mask: name of the tower's argument for the mask of padding, `[B, T]`, True = token.

    Returns:
      The adapter; it does not merge. `coop_prompt` has CoOp's other forms.

    >>> from mmjax.models import TextTransformer
    >>> model = TextTransformer(vocab_size=7, context_length=6, width=8, num_layers=2, num_heads=2, output_dim=3)
    >>> ids = jnp.array([[1, 5, 6, 0]])
    >>> variables = model.init(jax.random.key(0), ids)
    >>> adapter = prompt_tuning(2, init_ids=(3, 4))
    >>> params = adapter.init(jax.random.key(1), model.apply, variables, ids)
    >>> found = adapter.wrap(model.apply)(variables, params, ids)[0]
    >>> bool(jnp.allclose(found, model.apply(variables, jnp.array([[1, 3, 4, 5, 6, 0]]))[0], atol=1e-6))
    True

    Reference:
      Lester et al., "The Power of Scale for Parameter-Efficient Prompt Tuning", EMNLP 2021, section 2; Zhou et al.,
      "Learning to Prompt for Vision-Language Models" (CoOp), IJCV 2022, equation 2.
    """
    words = f"{tower}/{embedding}" if tower else embedding

    def init(rng: jax.Array, apply: Apply, params: Params, *example: Any, **kwargs: Any) -> dict[str, Any]:
        table = node_at("prompt_tuning", base_of(params), words)["embedding"]
        if num_prompts < 1 or len(init_ids) not in (0, num_prompts):
            raise ValueError(
                f"prompt_tuning: num_prompts is {num_prompts} with {len(init_ids)} init_ids, expected as many or none"
            )
        own = init_std * jax.random.normal(rng, (num_prompts, table.shape[1]))
        if init_ids:
            own = table[jnp.asarray(init_ids)].astype(jnp.float32)
        tree = {"prompt": {"embedding": own}}
        try:
            check_call(wrap(apply), params, tree, *example, **kwargs)
        except ValueError as error:
            error.add_note(f"prompt_tuning gives each text {num_prompts} tokens more")
            raise
        return tree

    def wrap(apply: Apply) -> Callable[..., Any]:
        def adapted(params: Params, adapter_params: Params, *args: Any, **kwargs: Any) -> Any:
            node_at("prompt_tuning", base_of(params), words)
            tree = unflatten({f"{words}/prompts": adapter_params["prompt"]["embedding"]})
            return insert(apply, {f"{tower}:args": enter, words: replace}, tree)(params, *args, **kwargs)

        return adapted

    def enter(own: Params, arguments: Any, call: Call) -> Any:
        named = arguments_of(call)
        ids = next(iter(named))
        # A copy of the first token is neither padding nor an end of text.
        changes = {ids: _insert(named[ids], named[ids][:, :1])}
        if named.get(mask) is not None:
            changes[mask] = _insert(named[mask], jnp.ones_like(named[mask][:, :1]))
        return replace_arguments(call, **changes)

    def _insert(tokens: jax.Array, new: jax.Array) -> jax.Array:
        more = jnp.repeat(new, num_prompts, axis=1)
        return jnp.concatenate([tokens[:, :num_prefix], more, tokens[:, num_prefix:]], axis=1)

    def replace(own: Params, tokens: jax.Array, call: Call) -> jax.Array:
        return replace_prompts(tokens, own["prompts"], num_prefix=num_prefix)

    reason = "prompts are tokens and no parameters of the model"
    patterns = (f"{tower}:args", words)
    return Adapter(init, wrap, cannot_merge("prompt_tuning", reason), "prompt_tuning", patterns)
