"""`Adapter`: a way to fine-tune a model by few parameters of their own, as a value of pure functions."""

import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from mmjax.intercept import module_paths

Params = Mapping[str, Any]
Apply = Callable[..., Any]


class NoMergeError(ValueError):
    """The adapter cannot be folded into the parameters of the model."""


class Adapter(NamedTuple):
    """An adapter, as a triple of pure functions in the manner of an optax transformation.

    `params` is what `apply` takes first: `{"params": ...}` for the `apply` of a Linen module, or the parameters alone.
    They are never changed; the adapter's own parameters are another tree, nested as the model's is, and freezing the
    model is to differentiate with respect to that tree alone.

    Attributes:
      init: `(rng, apply, params, *example, **kwargs) -> adapter_params`; the example is what `apply` takes after its
        parameters, arrays may be `jax.ShapeDtypeStruct`.
      wrap: `apply -> f(params, adapter_params, *args, **kwargs)`.
      merge: `(params, adapter_params) -> params` of the model alone that computes the same; raises NoMergeError where
        there are none.
      name: of the method.
      patterns: addresses that it acts on, see `mmjax.intercept`; none where it is about leaves of the model alone.
      unmerge: the inverse of `merge`, up to rounding; raises NoMergeError where there is none.
    """

    init: Callable[..., dict[str, Any]]
    wrap: Callable[[Apply], Callable[..., Any]]
    merge: Callable[[Params, Params], dict[str, Any]]
    name: str
    patterns: tuple[str, ...] = ()
    unmerge: Callable[[Params, Params], dict[str, Any]] | None = None


def cannot_merge(name: str, reason: str) -> Callable[[Params, Params], dict[str, Any]]:
    """A `merge` that says why there is none."""

    def merge(params: Params, adapter_params: Params) -> dict[str, Any]:
        raise NoMergeError(f"{name}: {reason}; keep the adapter and call wrap(apply)")

    return merge


def unmerging(adapter: Adapter) -> Callable[[Params, Params], dict[str, Any]]:
    """The adapter's `unmerge`; one that raises NoMergeError where there is none."""
    return adapter.unmerge or cannot_merge(adapter.name, "it has no unmerge")


def check_call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Calls a function that calls Linen modules on shapes, so that what is wrong with it is known at once."""
    module_paths(function, *args, **kwargs)


def bind(adapter: Adapter, apply: Apply, adapter_params: Params) -> Apply:
    """The adapted `apply` as a function of the model's parameters and the rest, for a further adapter around it."""

    def bound(params: Params, *args: Any, **kwargs: Any) -> Any:
        return adapter.wrap(apply)(params, adapter_params, *args, **kwargs)

    return bound


def base_of(params: Params) -> Params:
    """The parameters in what `apply` takes first.

    >>> base_of({"params": {"kernel": 1}}), base_of({"kernel": 1})
    ({'kernel': 1}, {'kernel': 1})
    """
    return params["params"] if isinstance(params.get("params"), Mapping) else params


def with_base(params: Params, base: Params) -> dict[str, Any]:
    """What `apply` takes first, with other parameters in it."""
    return {**params, "params": base} if base_of(params) is not params else dict(base)


def key_of(rng: jax.Array, name: str) -> jax.Array:
    """A random key of its own for each name."""
    return jax.random.fold_in(rng, zlib.crc32(name.encode()))
