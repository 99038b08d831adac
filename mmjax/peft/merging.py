"""Merging with a report of what changed, and sums of adapters."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.ops import at_least_float32
from mmjax.paths import flatten, unflatten
from mmjax.peft.adapter import Adapter, Params, base_of, unmerging


class NothingChangedError(ValueError):
    """A merge that leaves every parameter as it was."""


class MergeReport(NamedTuple):
    """What a merge changed.

    Attributes:
      changes: path of each leaf that changed -> its largest absolute change.
      non_finite: paths of the leaves that are not finite afterwards.
      total: number of leaves of the model.
    """

    changes: Mapping[str, float]
    non_finite: tuple[str, ...]
    total: int

    @property
    def touched(self) -> tuple[str, ...]:
        """Paths of the leaves that changed."""
        return tuple(self.changes)

    @property
    def largest_change(self) -> float:
        """The largest absolute change of a number; 0 where nothing changed."""
        return max(self.changes.values(), default=0.0)

    def __str__(self) -> str:
        lines = [f"{len(self.changes)} of {self.total} leaves changed, by at most {self.largest_change:.3g}"]
        if self.non_finite:
            lines.append(f"{len(self.non_finite)} leaves ARE NOT FINITE: {', '.join(self.non_finite[:8])}")
        return "\n".join(lines)


def merge(
    adapter: Adapter, params: Params, adapter_params: Params, *, allow_unchanged: bool = False
) -> tuple[dict[str, Any], MergeReport]:
    """Parameters of the model alone that compute what the adapted model does, and what became of them.

    Arithmetic is in float32, and leaves keep their dtype; `params` stay as they are.

    Args:
      adapter: to merge.
      params: of the model, bare or under `params`.
      adapter_params: of the adapter.
      allow_unchanged: whether it is fine that nothing changes.

    Returns:
      The parameters, as `params` come, and the report.

    Raises:
      NoMergeError: the adapter has no merge.
      NothingChangedError: every leaf is as it was.

    >>> from mmjax.peft import unfreeze
    >>> merged, report = merge(unfreeze("b"), {"a": jnp.ones(2), "b": jnp.zeros(1)}, {"b": jnp.ones(1)})
    >>> print(report)
    1 of 2 leaves changed, by at most 1
    """
    return _reported(adapter.name, "merge", adapter.merge, params, adapter_params, allow_unchanged)


def unmerge(
    adapter: Adapter, params: Params, adapter_params: Params, *, allow_unchanged: bool = False
) -> tuple[dict[str, Any], MergeReport]:
    """The inverse of `merge`, up to rounding: for the exact parameters keep those from before.

    Args:
      adapter: that was merged.
      params: that came of it.
      adapter_params, allow_unchanged: see `merge`.

    Raises:
      NoMergeError: the merge cannot be undone.
      NothingChangedError: every leaf is as it was.
    """
    return _reported(adapter.name, "unmerge", unmerging(adapter), params, adapter_params, allow_unchanged)


def combine(trees: Mapping[str, Params], weights: Mapping[str, float]) -> dict[str, Any]:
    """The parameters of one LoRA that does what several do together, weighted: exact, since ranks are put in a row.

    `s sum_i w_i a_i b_i = s [a_1, a_2, ...] [w_1 b_1; w_2 b_2; ...]`

    Args:
      trees: name -> parameters of a LoRA of the same settings; sites may differ. Where alpha / rank differs, multiply
        the weight by the ratio to that of the LoRA which the result is given to.
      weights: name -> weight, for each of them.

    Returns:
      The parameters; ranks are sums of ranks.

    Raises:
      ValueError: names differ, or a leaf is of no low-rank pair (a DoRA has no such sum).

    >>> one, two = ({"fc1": {"a": jnp.ones((3, 1)), "b": jnp.full((1, 2), value)}} for value in (1.0, 2.0))
    >>> combine({"one": one, "two": two}, {"one": 1.0, "two": 0.5})["fc1"]["b"].tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    if trees.keys() != weights.keys():
        raise ValueError(f"combine: trees are {sorted(trees)}, weights {sorted(weights)}; expected the same names")
    pairs: dict[str, list[tuple[float, jax.Array, jax.Array]]] = {}
    for name, tree in trees.items():
        flat = flatten(tree)
        for path in flat:
            site, _, leaf = path.rpartition("/")
            if leaf not in ("a", "b") or not {f"{site}/a", f"{site}/b"} <= flat.keys() or f"{site}/m" in flat:
                raise ValueError(f"combine: {name!r} has {path!r}, expected pairs a, b of a LoRA alone, which add up")
            if leaf == "a":
                pairs.setdefault(site, []).append((weights[name], flat[path], flat[f"{site}/b"]))
    return unflatten(
        {f"{site}/a": jnp.concatenate([a for _, a, _ in found], axis=-1) for site, found in pairs.items()}
        | {f"{site}/b": jnp.concatenate([w * b for w, _, b in found], axis=-2) for site, found in pairs.items()}
    )


def switch(trees: Mapping[str, Params], index: jax.typing.ArrayLike) -> dict[str, Any]:
    """The parameters of one of several adapters of the same settings, by number: one program for all of them.

    Args:
      trees: name -> parameters.
      index: which of them, in order; may be traced.

    Returns:
      The tree at `index`.

    >>> switch({"one": {"gate": jnp.ones(1)}, "two": {"gate": jnp.zeros(1)}}, 1)["gate"].tolist()
    [0.0]
    """
    return jax.tree.map(lambda *leaves: jnp.stack(leaves)[index], *trees.values())


def _reported(
    name: str,
    verb: str,
    fold: Callable[[Params, Params], dict[str, Any]],
    params: Params,
    adapter_params: Params,
    allow_unchanged: bool,
) -> tuple[dict[str, Any], MergeReport]:
    merged = fold(params, adapter_params)
    before, after = flatten(base_of(params)), flatten(base_of(merged))
    changes, non_finite = {}, []
    for path, leaf in after.items():
        change = float(jnp.max(jnp.abs(at_least_float32(leaf) - at_least_float32(before[path])), initial=0.0))
        if not np.all(jnp.isfinite(leaf)):
            non_finite.append(path)
        if change != 0.0:
            changes[path] = change
    if not changes and not allow_unchanged:
        raise NothingChangedError(
            f"{name}: {verb} changes none of {len(after)} leaves; the adapter has not been trained, or its update is "
            "lost in the dtype of the model. With allow_unchanged=True that is fine"
        )
    return merged, MergeReport(changes, tuple(non_finite), len(after))
