"""One optimizer for each group of parameters."""

from collections.abc import Mapping, Sequence
from typing import Any

import optax

from mmjax.paths import flatten, unflatten


def by_group(
    optimizers: Mapping[str, optax.GradientTransformation], paths: Mapping[str, Sequence[str]]
) -> optax.GradientTransformationExtraArgs:
    """Runs each optimizer on its own group of leaves, like the parameter groups of PyTorch.

    The state is `{group: state of its optimizer}`, each over the leaves of its group alone, where
    `optax.partition` has a placeholder for every other leaf. What an optimizer estimates over all parameters,
    it estimates over those of a group.

    Args:
      optimizers: group -> transformation.
      paths: group -> paths of its leaves; together all leaves of the tree.

    Returns:
      A transformation of nested dicts.

    >>> optimizer = by_group({"slow": optax.sgd(0.5), "fast": optax.sgd(2.0)}, {"slow": ["a"], "fast": ["b"]})
    >>> tree = {"a": 1.0, "b": 1.0}
    >>> optimizer.update(tree, optimizer.init(tree))[0]
    {'a': -0.5, 'b': -2.0}
    """
    inner = {group: optax.with_extra_args_support(optimizer) for group, optimizer in optimizers.items()}

    def cut(tree: Any) -> dict[str, Any]:
        if tree is None:
            return dict.fromkeys(inner)
        flat = flatten(tree)
        return {group: unflatten({path: flat[path] for path in paths[group]}) for group in inner}

    def init(params: Any) -> dict[str, Any]:
        parts = cut(params)
        return {group: optimizer.init(parts[group]) for group, optimizer in inner.items()}

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        gradients, values = cut(updates), cut(params)
        parts, new_state = {}, {}
        for group, optimizer in inner.items():
            parts[group], new_state[group] = optimizer.update(gradients[group], state[group], values[group], **extra)
        flat = dict.fromkeys(flatten(updates))  # keeps the order of the tree
        for part in parts.values():
            flat |= flatten(part)
        return unflatten(flat), new_state

    return optax.GradientTransformationExtraArgs(init, update)
