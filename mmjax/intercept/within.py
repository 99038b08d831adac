"""Transformations that take one module of a model for the whole."""

from collections.abc import Callable
from typing import Any

from mmjax.intercept.run import under_way

Transformation = Callable[[Callable[..., Any]], Callable[..., Any]]


def within(path: str, transformation: Transformation) -> Transformation:
    """The transformation for which the module at `path` is the whole model.

    Whatever `transformation` taps, edits, inserts or looks up is addressed from there, and sees nothing else; so one
    written for a tower serves the towers of a dual encoder.

    Args:
      path: of the module.
      transformation: of an `apply` into a function; may be any of `tap`, `edit`, `insert` with its patterns.

    Returns:
      A transformation of the `apply` of the whole model.

    >>> import jax, jax.numpy as jnp
    >>> from flax import linen as nn
    >>> from mmjax.intercept import tap
    >>> model = nn.Sequential([nn.Sequential([nn.Dense(3)]), nn.Dense(2)])
    >>> variables = model.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> first = within("layers_0", lambda apply: tap(apply, "*"))
    >>> list(first(model.apply)(variables, jnp.ones((1, 4)))[1])
    ['layers_0']
    """
    names = tuple(path.split("/"))

    def transformed(apply: Callable[..., Any]) -> Callable[..., Any]:
        def outside(*args: Any, **kwargs: Any) -> Any:
            around = under_way()

            def inside(*args: Any, **kwargs: Any) -> Any:
                runs = [run for run in under_way() if run not in around]
                before = [run.focus for run in runs]
                for run in runs:
                    run.focus = (*names, *run.focus)
                try:
                    return apply(*args, **kwargs)
                finally:
                    for run, focus in zip(runs, before, strict=True):
                        run.focus = focus

            return transformation(inside)(*args, **kwargs)

        return outside

    return transformed
