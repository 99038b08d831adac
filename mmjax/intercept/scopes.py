"""What interception needs of Flax scopes: a collection that crosses lifted transformations both ways.

A value made inside `nn.scan` or `nn.remat` is a tracer of that transformation: in a Python variable it would leak.
Flax carries variables across, and a scan stacks them, so values travel in the collection `intermediates`: outwards
where it is mutable, inwards (layer indices) where it is merely present. `apply` is opaque, so the collection is
opened from inside, on the scopes of the modules that it calls.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from flax import linen as nn
from flax.core import FrozenDict, freeze, unfreeze
from flax.core.scope import CollectionFilter, Scope, union_filters

# Lifted transformations must carry it: `nn.scan(..., variable_axes={"params": 0, "intermediates": 0})`.
COLLECTION = "intermediates"


def is_lifted(root: Scope) -> bool:
    """Whether a root scope is that of a lifted transformation; Flax notes `scan(blocks)` in its debug path."""
    return root.debug_path != root.path


def is_jitted(root: Scope) -> bool:
    """Whether a root scope lies inside `nn.jit`."""
    return any("jit(" in name for name in root.debug_path)


class OpenRoot:
    """The root scope of a model that is being called, opened for a run."""

    def __init__(self, root: Scope, *, writable: bool, given: Mapping[tuple[str, ...], Mapping[str, Any]]):
        """Opens a root scope.

        Args:
          root: the scope.
          writable: whether values go out through the collection.
          given: values that go in: path of the scope where they enter -> name -> value.
        """
        self.root = root
        self._given = {name for values in given.values() for name in values}
        self._modules: dict[int, nn.Module] = {}
        self._scopes: dict[int, Scope] = {}
        self._closed = root.mutable, root.flags
        # Another flag makes `nn.jit` trace again; its cache would hide the calls inside.
        flags = freeze({**root.flags, "intercepted": True})
        self._opened = union_filters(root.mutable, COLLECTION) if writable else root.mutable, flags
        self._before = root._variables.get(COLLECTION)
        if not root.is_mutable_collection(COLLECTION):
            # What is immutable belongs to the caller.
            root._variables[COLLECTION] = unfreeze(self._before or {})
        for path, values in given.items():
            _node(root, path, create=True).update(values)

    def open(self, module: nn.Module) -> None:
        """Opens the scopes of a module about to run and of its submodules: lifted ones start without a call."""
        for opened in (module, *module._state.children.values()):
            if isinstance(opened, nn.Module):
                self._modules[id(opened)] = opened
                scope = opened.scope
                while scope is not None and id(scope) not in self._scopes:
                    self._scopes[id(scope)] = scope
                    _set(scope, *self._opened)
                    scope = scope.parent

    def close(self) -> None:
        """Puts everything back."""
        # After a compact call Flax gives the module a copy of its scope.
        copies = (module.scope for module in self._modules.values() if module.scope is not None)
        for scope in (*self._scopes.values(), *copies):
            _set(scope, *self._closed)
        variables = self.root._variables
        if self.root.is_mutable_collection(COLLECTION):
            _prune(variables, COLLECTION, self._given)
        else:
            variables.pop(COLLECTION, None)
            if self._before is not None:
                variables[COLLECTION] = self._before


def take(root: Scope, path: tuple[str, ...], name: str) -> Mapping[str, tuple[Any, ...]]:
    """Removes and returns what a lifted transformation has published as `name` at the scope `path`, below `root`."""
    return _node(root, path[len(root.path) :]).pop(name)


def look_up(scope: Scope, path: Iterable[str], name: str) -> Any:
    """The value that lies as `name` at `path` below `scope`."""
    node = scope._collection(COLLECTION)
    for step in path:
        node = node[step]
    return node[name]


def _set(scope: Scope, mutable: CollectionFilter, flags: FrozenDict) -> None:
    scope.mutable, scope.flags = mutable, flags
    if scope.parent is not None:
        # It points to its part of the collection; the scopes of a bound module outlive the collections of many runs.
        scope._variables.pop(COLLECTION, None)


def _node(root: Scope, path: Iterable[str], *, create: bool = False) -> dict[str, Any]:
    node = root._variables.setdefault(COLLECTION, {})
    for name in path:
        node = node.setdefault(name, {}) if create else node[name]
    return node


def _prune(parent: dict[str, Any], name: str, given: set[str]) -> None:
    """Removes the `given` names below `parent[name]`, and what is empty."""
    if name in given:
        parent.pop(name)
        return
    node = parent.get(name)
    if isinstance(node, dict):
        for child in tuple(node):
            _prune(node, child, given)
        if not node:
            parent.pop(name)
