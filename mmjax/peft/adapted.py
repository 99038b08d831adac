"""Any method on an adapted model: the adapter's parameters beside the model's, and which of them train."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from contextvars import ContextVar
from typing import Any

import jax

from mmjax.method import Batch, Method
from mmjax.paths import flatten, unflatten
from mmjax.peft.adapter import Adapter, Params, key_of
from mmjax.peft.chain import per_tower
from mmjax.peft.merging import MergeReport, merge
from mmjax.peft.report import AdapterReport, describe_adapter

# Where the parameters of an adapted model have those of its adapter.
ADAPTER = "adapter"

# Parameters that an adapted model is to start from, in place of fresh ones.
_given: ContextVar[Params | None] = ContextVar("given", default=None)


@dataclasses.dataclass(frozen=True)
class AdaptedModel:
    """A model and its adapter, with the `init` and `apply` of a Linen module: a method on it needs no change.

    Parameters: the model's where they always are, and the adapter's under `adapter`. Whatever else is asked of it
    (fields, `clone`) is the model's.

    Attributes:
      model: a Linen module.
      adapter: of the model.
    """

    model: Any
    adapter: Adapter

    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Fresh variables, adapter included, from an example of the model's arguments."""
        variables = self.model.init(rngs, *args, **kwargs)
        base = _started(variables["params"])
        key = key_of(rngs["params"] if isinstance(rngs, Mapping) else rngs, ADAPTER)
        own = self.adapter.init(key, self.model.apply, {**variables, "params": base}, *args, **kwargs)
        _check_own(self.adapter.name, base, own)
        return {**variables, "params": {**base, ADAPTER: own}}

    def apply(self, variables: Params, *args: Any, **kwargs: Any) -> Any:
        """What the adapted model makes of its arguments."""
        base, own = split_adapter(variables["params"])
        return self.adapter.wrap(self.model.apply)({**variables, "params": base}, own, *args, **kwargs)

    def describe(self, *args: Any, **kwargs: Any) -> AdapterReport:
        """What the adapter acts on, from an example of the model's arguments; nothing is computed."""
        shapes = jax.eval_shape(lambda: self.model.init(jax.random.key(0), *args, **kwargs))
        return describe_adapter(self.adapter, self.model.apply, shapes, *args, **kwargs)

    def merge(self, params: Params, *, allow_unchanged: bool = False) -> tuple[dict[str, Any], MergeReport]:
        """Parameters of the model alone that compute the same, see `mmjax.peft.merge`."""
        return merge(self.adapter, *split_adapter(params), allow_unchanged=allow_unchanged)

    def clone(self, **changes: Any) -> "AdaptedModel":
        """The model with other settings, adapted likewise."""
        return AdaptedModel(self.model.clone(**changes), self.adapter)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.model, name)


def split_adapter(params: Params) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters of the model and those of its adapter, in the parameters of an adapted model.

    Raises:
      ValueError: there is no adapter among them.
    """
    if ADAPTER not in params:
        raise ValueError(f"the parameters hold no adapter, but {', '.join(params)}; they are of a model that has none")
    return {name: leaf for name, leaf in params.items() if name != ADAPTER}, params[ADAPTER]


def adapt_method(
    build: Callable[..., Method], model: Any, adapter: Adapter | Mapping[str, Adapter], *, at: str = ""
) -> Method:
    """A method on an adapted model: adapters train, what they adapt does not.

    The towers named have their own parameters frozen: these have neither gradient nor optimizer state, and stay as
    they are to the bit. What the model has beside them (`log_scale`, heads) trains as the method says, and a tower
    that the method locks has its adapter locked too.

    Args:
      build: `model -> Method`, such as `clip`.
      model: a Linen module.
      adapter: path of a tower -> its adapter; or one adapter of the whole model, beside which nothing trains.
      at: path of the model in the method's parameters, where they hold more.

    Returns:
      The method.

    >>> from mmjax.methods.clip import clip
    >>> from mmjax.models import build_dual_encoder
    >>> from mmjax.peft import frozen, lora
    >>> method = adapt_method(clip, build_dual_encoder("nano/8"), {"image": lora(), "text": frozen()})
    >>> method.partition
    (('{image/**,text/**}', False), ('**', True))
    """
    if isinstance(adapter, Adapter):
        return freeze_base(build(AdaptedModel(model, adapter)), None, at=at)
    return freeze_base(build(AdaptedModel(model, per_tower(adapter))), tuple(adapter), at=at)


def freeze_base(method: Method, towers: Collection[str] | None, *, at: str = "") -> Method:
    """A method on an `AdaptedModel` with the parameters of the towers frozen, see `adapt_method`.

    Args:
      method: on an adapted model.
      towers: paths of those with adapters; None = the model as a whole.
      at: path of the model in the method's parameters.
    """
    root = f"{at}/" if at else ""

    def with_adapters(pattern: str) -> str:
        """A rule about the model's parameters is one about their adapters."""
        known = pattern.startswith(root) and not pattern.startswith("**")
        return _either([pattern, f"{root}{ADAPTER}/{pattern.removeprefix(root)}"] if known else [pattern])

    rules = [(with_adapters(pattern), trains) for pattern, trains in method.partition]
    start = next((i for i, (_, trains) in enumerate(rules) if trains), len(rules))
    if towers is None:
        own = [(f"{root}{ADAPTER}/**", True), (f"{root}**", False)]
        rest = rules[start:] if at else []
    else:
        own, rest = [(_either([f"{root}{tower}/**" for tower in towers]), False)], rules[start:]
    return method._replace(partition=(*rules[:start], *own, *rest))


def rebase(
    method: Method, rng: jax.Array, params: Params, batch: Batch, *, keep: Collection[str] = ()
) -> dict[str, Any]:
    """Adapters that start from the model in `params`, after its own parameters have been replaced.

    Some start from values of the model (DoRA's magnitudes, unfrozen leaves). Initialised before pretrained parameters
    were put in place, they belong to others.

    Args:
      method: any; where it has no adapter, `params` come back.
      rng, batch: of its `init`.
      params: all of the method's parameters, an adapted model's among them.
      keep: paths of the adapters' leaves that stay as they are.

    Returns:
      The parameters with the other leaves of adapters made anew.
    """
    token = _given.set(params)
    try:
        fresh = flatten(method.init(rng, batch).params)
    finally:
        _given.reset(token)
    return unflatten(
        {
            path: fresh[path] if ADAPTER in path.split("/") and path in fresh and path not in keep else leaf
            for path, leaf in flatten(params).items()
        }
    )


def _started(fresh: Params) -> Params:
    """The model's parameters among those given (`rebase`): the subtree beside an adapter that has the same leaves."""
    given = _given.get()
    shapes = {path: leaf.shape for path, leaf in flatten(fresh).items()}
    candidates = [given] if given is not None else []
    while candidates:
        node = candidates.pop()
        if ADAPTER in node:
            base, _ = split_adapter(node)
            if {path: leaf.shape for path, leaf in flatten(base).items()} == shapes:
                return base
        candidates += [child for child in node.values() if isinstance(child, Mapping)]
    return fresh


def _check_own(name: str, base: Params, own: Params) -> None:
    if not jax.tree.leaves(own):
        raise ValueError(f"{name}: nothing trains, the adapter has no parameters")
    for path in flatten(own):
        leaf = path.rpartition("/")[2]
        parents = path.split("/")[:-1]
        if leaf in base and getattr(base[leaf], "ndim", None) == 0 and all(part[0].isdigit() for part in parents):
            raise ValueError(
                f"{name}: it takes the place of {leaf!r}, which methods read beside the model; name the towers to "
                "adapt, and the rest trains as the method says"
            )


def _either(patterns: list[str]) -> str:
    return patterns[0] if len(patterns) == 1 else f"{{{','.join(patterns)}}}"
