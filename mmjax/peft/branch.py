"""An adapter from branches: what they start from, compute and merge to at one module; stacks are taken care of."""

import functools
import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmjax.intercept import Call, Target, find_targets, insert
from mmjax.intercept.insertion import nodes_of
from mmjax.intercept.patterns import matches_address, matches_path
from mmjax.ops import at_least_float32
from mmjax.paths import NoMatchError, flatten, suggestion, unflatten
from mmjax.peft.adapter import Adapter, Apply, Params, base_of, cannot_merge, key_of, with_base

_RANGE = re.compile(r"\{(-?\d+)\.\.(-?\d+)\}")


class Branch(NamedTuple):
    """What an adapter does at one address, see `mmjax.intercept.insert`.

    Attributes:
      init: `(rng, target, base) -> params` of the branch at one module; in a stack, of one layer. `target` tells the
        module's settings and the shapes of its values, `base` are its own parameters.
      apply: `(params, value, call) -> value`; with `random`, it takes also `rng`, None where nothing is random.
      merge: `(base, params) -> base`, parameters of the module that do the same without the branch. Leaves come in
        float32, and may have axes of layers in front: count axes from the end. None = there are none.
      unmerge: the inverse of `merge`.
      random: whether it draws random numbers in training.
      ports: further ports of the module at which the branch acts -> `apply` there.
    """

    init: Callable[[jax.Array, Target, Params], Mapping[str, Any]]
    apply: Callable[..., Any]
    merge: Callable[[Params, Params], Mapping[str, Any]] | None = None
    unmerge: Callable[[Params, Params], Mapping[str, Any]] | None = None
    random: bool = False
    ports: Mapping[str, Callable[..., Any]] = {}


def make_adapter(name: str, branches: Mapping[str, Branch | nn.Module]) -> Adapter:
    """An adapter from branches, by patterns of the addresses where they act.

    It works on unrolled, scanned and rematerialised layers, each with parameters of its own. The first pattern that
    matches an address claims it.

    Args:
      name: of the method, for reports and errors.
      branches: pattern -> branch, or a module `value -> value`.

    Returns:
      The adapter. Its `init` raises NoMatchError where a pattern matches nothing, or a range such as `block_{0..15}`
      goes beyond the tower, and ValueError where a pattern is left nothing by those before it.

    >>> from mmjax.models import TextTransformer
    >>> model = TextTransformer(vocab_size=7, context_length=4, width=8, num_layers=2, num_heads=2, output_dim=3)
    >>> ids = jnp.array([[1, 5, 6, 0]])
    >>> variables = model.init(jax.random.key(0), ids)
    >>> gate = Branch(
    ...     init=lambda rng, target, base: {"gate": jnp.ones(target.value.shape[-1])},
    ...     apply=lambda params, value, call: params["gate"] * value)
    >>> adapter = make_adapter("gate", {"encoder/*/mlp": gate})
    >>> params = adapter.init(jax.random.key(1), model.apply, variables, ids)
    >>> params["encoder"]["block_1"]["mlp"]["gate"].shape
    (8,)
    >>> f = adapter.wrap(model.apply)
    >>> bool(jnp.all(f(variables, params, ids)[0] == model.apply(variables, ids)[0]))
    True
    """
    parts = {pattern: _of_module(part) if isinstance(part, nn.Module) else part for pattern, part in branches.items()}

    def init(rng: jax.Array, apply: Apply, params: Params, *example: Any, **kwargs: Any) -> dict[str, Any]:
        found = find_targets(apply, tuple(parts), params, *example, **kwargs)
        flat: dict[str, Any] = {}
        taken: set[str] = set()
        for pattern, targets in found.items():
            _check_ranges(name, pattern, targets)
            free = {address: target for address, target in targets.items() if address not in taken}
            if not free:
                raise ValueError(f"{name}: {pattern!r} is left nothing by the patterns before it; move it or remove it")
            taken |= free.keys()
            for address, target in free.items():
                own = _init_layers(name, parts[pattern], key_of(rng, address), target, base_of(params))
                for path, leaf in flatten(own).items():
                    path = f"{target.path}/{path}" if target.path else path
                    if path in flat:
                        raise ValueError(f"{name}: two branches have {path!r}; give their parameters different names")
                    flat[path] = leaf
        return unflatten(flat)

    def wrap(apply: Apply) -> Callable[..., Any]:
        def adapted(params: Params, adapter_params: Params, *args: Any, **kwargs: Any) -> Any:
            _sites(name, parts, base_of(params), adapter_params)
            rng = _dropout_key(name, kwargs) if any(part.random for part in parts.values()) else None
            functions = {
                f"{pattern}:{port}" if port else pattern: _acting(parts, pattern, function, rng)
                for pattern, part in parts.items()
                for port, function in {"": part.apply, **part.ports}.items()
            }
            return insert(apply, functions, adapter_params)(params, *args, **kwargs)

        return adapted

    def folding(function: str) -> Callable[[Params, Params], dict[str, Any]]:
        missing = [pattern for pattern, part in parts.items() if getattr(part, function) is None]
        if missing:
            return cannot_merge(name, f"there is no {function} of what it does at {missing[0]!r}")

        def fold(params: Params, adapter_params: Params) -> dict[str, Any]:
            flat = flatten(base_of(params))
            for site in _sites(name, parts, base_of(params), adapter_params):
                base = {path.rpartition("/")[2]: flat[path] for path in flat if path.rpartition("/")[0] == site.path}
                wide = jax.tree.map(at_least_float32, (base, dict(site.params)))
                for leaf, value in getattr(parts[site.pattern], function)(*wide).items():
                    flat[f"{site.path}/{leaf}"] = value.astype(base[leaf].dtype)
            return with_base(params, unflatten(flat))

        return fold

    return Adapter(init, wrap, folding("merge"), name, tuple(parts), folding("unmerge"))


class _Site(NamedTuple):
    path: str
    pattern: str
    params: Params


def _sites(name: str, branches: Mapping[str, Branch], base: Params, params: Params) -> list[_Site]:
    """Where in the adapter's parameters which pattern has its own; what would silently do nothing is an error."""
    sites = []
    for path, node in nodes_of(params).items():
        ports = set()
        for pattern in branches:
            glob, _, port = pattern.partition(":")
            if port not in ports and matches_path(path, glob):
                ports.add(port)
                sites.append(_Site(path, pattern, node))
    modules, used = nodes_of(base), {site.path for site in sites}
    for path in used:
        if path not in modules and path.rpartition("/")[0] not in modules:
            raise ValueError(
                f"{name}: the adapter has parameters for {path!r}, which the model lacks: {suggestion(path, modules)} "
                "(between unrolled and scanned layers, mmjax.models.stack_layers and unstack_layers convert them)"
            )
    for path in flatten(params):
        parts = path.split("/")
        if used.isdisjoint("/".join(parts[:depth]) for depth in range(len(parts))):
            raise ValueError(f"{name}: no pattern is about {path!r} of the adapter; its patterns are {list(branches)}")
    return sites


def _acting(branches: Mapping[str, Branch], pattern: str, function: Callable[..., Any], rng: jax.Array | None) -> Any:
    """The function of a pattern where no earlier pattern has the claim, with random keys of its own."""
    glob, _, port = pattern.partition(":")
    parts = (other.partition(":") for other in branches)
    earlier = [other for other, _, its_port in parts if its_port == port]
    earlier = earlier[: earlier.index(glob)]
    random = branches[pattern].random

    def act(params: Params, value: Any, call: Call) -> Any:
        if any(matches_path(call.path, other) for other in earlier):
            return value
        if not random:
            return function(params, value, call)
        own = None if rng is None else key_of(rng, call.path)
        own = own if own is None or call.layer is None else jax.random.fold_in(own, call.layer)
        return function(params, value, call, rng=own)

    return act


def _of_module(module: nn.Module) -> Branch:
    def init(rng: jax.Array, target: Target, base: Params) -> Mapping[str, Any]:
        value = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), target.value)
        return module.init(rng, value)["params"]

    def apply(params: Params, value: Any, call: Call) -> Any:
        return call.apply(module, params, value)

    return Branch(init, apply)


def _init_layers(name: str, branch: Branch, rng: jax.Array, target: Target, base: Params) -> Mapping[str, Any]:
    """The parameters at a target, those of a stack with its axes in front."""
    if target.stack is None:
        raise ValueError(f"{name}: {target.path!r} is in a stack that does not carry the collection 'intermediates'")
    node: Any = base
    for part in target.path.split("/"):
        node = node.get(part, {}) if isinstance(node, Mapping) else {}
    keys = rng
    if target.stack:
        numbers = jnp.arange(math.prod(target.stack)).reshape(target.stack)
        keys = functools.reduce(lambda fn, _: jax.vmap(fn, (None, 0)), target.stack, jax.random.fold_in)(rng, numbers)

    def of_layer(rng: jax.Array, base: Params) -> Mapping[str, Any]:
        return branch.init(rng, target, base)

    return functools.reduce(lambda fn, _: jax.vmap(fn), target.stack, of_layer)(keys, node)


def _check_ranges(name: str, pattern: str, addresses: Iterable[str]) -> None:
    """Every number of a range must match: what is beyond the tower was not meant."""
    ends = [(int(found[1]), int(found[2])) for found in _RANGE.finditer(pattern)]
    spans = [range(min(pair), max(pair) + 1) for pair in ends]
    for numbers in itertools.product(*spans):
        remaining = iter(numbers)
        one = _RANGE.sub(lambda found, remaining=remaining: str(next(remaining)), pattern)
        if spans and not any(matches_address(address, one) for address in addresses):
            raise NoMatchError(f"{name}: {pattern!r} goes beyond the model, which has no {one!r}")


def _dropout_key(name: str, kwargs: Mapping[str, Any]) -> jax.Array | None:
    """The key of dropout among the arguments of `apply`; None where dropout is off."""
    rngs = kwargs.get("rngs")
    key = rngs.get("dropout") if isinstance(rngs, Mapping) else None
    if key is None and kwargs.get("deterministic") is False:
        raise ValueError(f"{name}: deterministic is False, but there is no key; give rngs={{'dropout': key}}")
    return None if kwargs.get("deterministic") else key
