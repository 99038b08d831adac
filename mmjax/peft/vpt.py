"""Visual prompt tuning: learned tokens beside the patches."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.intercept import Call, insert
from mmjax.peft.adapter import Adapter, Apply, Params, base_of, cannot_merge, check_call
from mmjax.peft.arguments import arguments_of
from mmjax.peft.layers import node_at, num_layers, place_in_layers
from mmjax.peft.prompts import insert_prompts, remove_prompts, replace_prompts


def vpt(num_prompts: int = 10, *, depth: int | None = None, num_prefix: int = 1, encoder: str = "encoder") -> Adapter:
    """Prompts after the class token in the blocks of a vision tower.

    They enter before the first block; each of the first `depth` blocks has prompts of its own, which take the place of
    what the block before made of its prompts. After the last block they are taken out: norm, pooling and the tower's
    results see the tower's own tokens. Parameter `prompt/embedding` `[depth, P, D]`, uniform in
    +-sqrt(6 / (3 patch^2 + D)) at the start, where a model is not unchanged.

    Args:
      num_prompts: P.
      depth: blocks with prompts of their own: 1 = VPT-shallow, None = all (VPT-deep).
      num_prefix: tokens in front of the prompts: class token and registers.
      encoder: path of the stack of blocks.

    Returns:
      The adapter; it does not merge. Its `init` raises ValueError where `depth` goes beyond the tower.

    >>> from mmjax.models import VisionTransformer
    >>> model = VisionTransformer(patch_size=4, width=8, num_layers=3, num_heads=2, output_dim=4)
    >>> images = jnp.ones((1, 8, 8, 3))
    >>> variables = model.init(jax.random.key(0), images)
    >>> adapter = vpt(5, depth=2)
    >>> params = adapter.init(jax.random.key(1), model.apply, variables, images)
    >>> params["prompt"]["embedding"].shape
    (2, 5, 8)

    Reference:
      Jia et al., "Visual Prompt Tuning", ECCV 2022, equations 4 to 7.
    """

    def init(rng: jax.Array, apply: Apply, params: Params, *example: Any, **kwargs: Any) -> dict[str, Any]:
        base = base_of(params)
        layers = num_layers("vpt", base, encoder)
        own = layers if depth is None else depth
        if num_prompts < 1 or not 1 <= own <= layers:
            raise ValueError(
                f"vpt: num_prompts is {num_prompts} and depth {own}, expected 1 or more, and 1 to {layers}, the blocks "
                f"of {encoder!r}"
            )
        tower = encoder.rpartition("/")[0]
        kernel = node_at("vpt", base, f"{tower}/patch_embed" if tower else "patch_embed")["kernel"]
        width = kernel.shape[-1]
        bound = math.sqrt(6 / (math.prod(kernel.shape[:-1]) + width))
        table = jax.random.uniform(rng, (own, num_prompts, width), minval=-bound, maxval=bound)
        tree = {"prompt": {"embedding": table}}
        check_call(wrap(apply), params, tree, *example, **kwargs)
        return tree

    def wrap(apply: Apply) -> Callable[..., Any]:
        def adapted(params: Params, adapter_params: Params, *args: Any, **kwargs: Any) -> Any:
            table, base = adapter_params["prompt"]["embedding"], base_of(params)
            layers = num_layers("vpt", base, encoder)
            padding = [(0, layers - table.shape[0]), (0, 0), (0, 0)]
            values = {"prompts": jnp.pad(table, padding), "own": jnp.arange(layers) < table.shape[0]}
            tree = place_in_layers("vpt", base, encoder, values)
            node_at("vpt", tree, encoder)["prompts"] = table[0]
            branches = {f"{encoder}:in": enter, f"{encoder}/block*:in": replace, encoder: leave}
            return insert(apply, branches, tree)(params, *args, **kwargs)

        return adapted

    def enter(own: Params, tokens: jax.Array, call: Call) -> jax.Array:
        if arguments_of(call).get("mask") is not None:
            raise ValueError(f"vpt: {call.path!r} has an attention mask, as text towers do; use prompt_tuning there")
        return insert_prompts(tokens, own["prompts"], num_prefix=num_prefix)

    def replace(own: Params, tokens: jax.Array, call: Call) -> jax.Array:
        return jnp.where(own["own"], replace_prompts(tokens, own["prompts"], num_prefix=num_prefix), tokens)

    def leave(own: Params, value: Any, call: Call) -> Any:
        return jax.tree.map(lambda tokens: remove_prompts(tokens, len(own["prompts"]), num_prefix=num_prefix), value)

    reason = "prompts are tokens and no parameters of the model"
    return Adapter(init, wrap, cannot_merge("vpt", reason), "vpt", (f"{encoder}:in", f"{encoder}/block*:in", encoder))
