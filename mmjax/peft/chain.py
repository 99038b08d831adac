"""Adapters together: one after the other, and one for each tower."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from mmjax.intercept import within
from mmjax.paths import flatten, suggestion
from mmjax.peft.adapter import Adapter, Apply, Params, base_of, bind, key_of, unmerging, with_base
from mmjax.peft.layers import node_at


def chain(*adapters: Adapter) -> Adapter:
    """Several adapters of one model. At an address the first acts first; `merge` folds them in that order.

    Args:
      *adapters: in order; those that train leaves of the model (`bitfit`, `unfreeze`, `full`) come first, since the
        others build on these leaves.

    Returns:
      The adapter; its parameters are those of each, under `0_<name>`, `1_<name>`...

    Raises:
      ValueError: one that trains leaves of the model comes later.

    >>> from mmjax.peft import bitfit, lora
    >>> adapter = chain(bitfit(), lora())
    >>> adapter.name
    'bitfit + lora'
    """
    acting = [adapter.name for adapter in adapters if adapter.patterns]
    for adapter in adapters[adapters.index(next(a for a in adapters if a.patterns)) :] if acting else ():
        if not adapter.patterns:
            raise ValueError(f"chain: {adapter.name} is about leaves of the model, and comes before {acting[0]}")
    parts = {f"{i}_{adapter.name.replace(' + ', '_')}": adapter for i, adapter in enumerate(adapters)}

    def init(rng: jax.Array, apply: Apply, params: Params, *example: Any, **kwargs: Any) -> dict[str, Any]:
        return {
            key: adapter.init(key_of(rng, key), apply, params, *example, **kwargs) for key, adapter in parts.items()
        }

    def wrap(apply: Apply) -> Callable[..., Any]:
        def adapted(params: Params, adapter_params: Params, *args: Any, **kwargs: Any) -> Any:
            _check_keys("chain", adapter_params, parts)
            function = apply
            for key, adapter in parts.items():
                function = bind(adapter, function, adapter_params.get(key, {}))
            return function(params, *args, **kwargs)

        return adapted

    def merge(params: Params, adapter_params: Params) -> dict[str, Any]:
        for key, adapter in parts.items():
            params = adapter.merge(params, adapter_params.get(key, {}))
        return dict(params)

    def unmerge(params: Params, adapter_params: Params) -> dict[str, Any]:
        for key, adapter in reversed(parts.items()):
            params = unmerging(adapter)(params, adapter_params.get(key, {}))
        return dict(params)

    name = " + ".join(adapter.name for adapter in adapters)
    patterns = tuple(pattern for adapter in adapters for pattern in adapter.patterns)
    return Adapter(init, wrap, merge, name, patterns, unmerge)


def per_tower(towers: Mapping[str, Adapter]) -> Adapter:
    """An adapter for each tower of a model, to which the tower is the whole: patterns and paths start there.

    Args:
      towers: path of a tower, such as "image" -> its adapter.

    Returns:
      The adapter; its parameters are those of each, under the path of the tower. Its `init` raises ValueError for a
      tower that the model lacks, and where nothing trains.

    >>> from mmjax.peft import frozen, lora
    >>> per_tower({"image": lora(), "text": frozen()}).patterns
    ('image/**/block*/attn/{query,value}',)
    """

    def of_tower(path: str, apply: Apply, params: Params) -> Apply:
        """`apply` as a function of the tower's parameters."""

        def function(own: Params, *args: Any, **kwargs: Any) -> Any:
            return apply(with_base(params, _with_node(base_of(params), path, own)), *args, **kwargs)

        return function

    def init(rng: jax.Array, apply: Apply, params: Params, *example: Any, **kwargs: Any) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for path, adapter in towers.items():
            tower = node_at("per_tower", base_of(params), path)
            if not isinstance(tower, Mapping):
                raise ValueError(f"per_tower: {path!r} is a parameter and no tower")
            start = within(path, lambda apply, adapter=adapter, path=path: _starting(adapter, key_of(rng, path), apply))
            own = start(of_tower(path, apply, params))(tower, *example, **kwargs)
            tree = _with_node(tree, path, own) if own else tree
        if not jax.tree.leaves(tree):
            names = ", ".join(f"{path}: {adapter.name}" for path, adapter in towers.items())
            raise ValueError(f"per_tower: nothing trains ({names}); give a tower an adapter with parameters")
        return tree

    def wrap(apply: Apply) -> Callable[..., Any]:
        def adapted(params: Params, adapter_params: Params, *args: Any, **kwargs: Any) -> Any:
            _check_keys("per_tower", adapter_params, towers)
            function = apply
            for path, adapter in towers.items():
                function = bind_tower(path, adapter, function, _node(adapter_params, path))
            return function(params, *args, **kwargs)

        return adapted

    def bind_tower(path: str, adapter: Adapter, apply: Apply, adapter_params: Params) -> Apply:
        def bound(params: Params, *args: Any, **kwargs: Any) -> Any:
            tower = node_at("per_tower", base_of(params), path)
            function = within(path, adapter.wrap)(of_tower(path, apply, params))
            return function(tower, adapter_params, *args, **kwargs)

        return bound

    def folding(select: Callable[[Adapter], Callable[..., Any]]) -> Callable[[Params, Params], dict[str, Any]]:
        def fold(params: Params, adapter_params: Params) -> dict[str, Any]:
            base = base_of(params)
            for path, adapter in towers.items():
                tower = node_at("per_tower", base, path)
                base = _with_node(base, path, select(adapter)(tower, _node(adapter_params, path)))
            return with_base(params, base)

        return fold

    name = ", ".join(f"{path}: {adapter.name}" for path, adapter in towers.items())
    patterns = tuple(_join(path, pattern) for path, adapter in towers.items() for pattern in adapter.patterns)
    return Adapter(init, wrap, folding(lambda adapter: adapter.merge), name, patterns, folding(unmerging))


def _starting(adapter: Adapter, rng: jax.Array, apply: Apply) -> Callable[..., Any]:
    return lambda params, *example, **kwargs: adapter.init(rng, apply, params, *example, **kwargs)


def _join(path: str, pattern: str) -> str:
    return f"{path}{pattern}" if pattern.startswith(":") else f"{path}/{pattern}"


def _node(tree: Params, path: str) -> Params:
    node: Any = tree
    for part in path.split("/"):
        node = node.get(part, {})
    return node


def _with_node(tree: Params, path: str, node: Any) -> dict[str, Any]:
    first, _, rest = path.partition("/")
    return {**tree, first: _with_node(tree.get(first, {}), rest, node) if rest else node}


def _check_keys(name: str, tree: Params, known: Mapping[str, Any]) -> None:
    for path in flatten(tree):
        if not any(path.startswith(f"{key}/") for key in known):
            raise ValueError(f"{name}: the adapter has parameters for {path!r}; {suggestion(path, known)}")
