"""No fine-tuning."""

from collections.abc import Callable
from typing import Any

from mmjax.peft.adapter import Adapter, Apply, Params


def frozen() -> Adapter:
    """Nothing trains, and nothing is changed."""

    def wrap(apply: Apply) -> Callable[..., Any]:
        return lambda params, adapter_params, *args, **kwargs: apply(params, *args, **kwargs)

    def same(params: Params, adapter_params: Params) -> dict[str, Any]:
        return dict(params)

    return Adapter(lambda rng, apply, params, *example, **kwargs: {}, wrap, same, "frozen", unmerge=same)
