"""An optimizer from values: what trains, at which rate, with which decay, within which bounds."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import optax
from jax.typing import ArrayLike

from mmjax.optim.bounds import clip_params
from mmjax.optim.factory import make_optimizer
from mmjax.optim.groups import by_group
from mmjax.optim.layer_decay import layer_rates
from mmjax.optim.partition import Leaf, Partition, Rule, RuleLike, partition_params
from mmjax.optim.schedules import Schedule, build_schedule
from mmjax.paths import match, matches

# Not decayed, beside what has less than two axes. Biases, norms and layer scales are named because scanned
# layers give them a second axis.
UNDECAYED = ("**/{bias,scale}", "**/gamma_*", "**/{class,register,position}_embedding")


class Group(NamedTuple):
    """Leaves with one multiple of the learning rate and one weight decay."""

    rate: float
    weight_decay: float
    leaves: tuple[Leaf, ...]


class Optimizer(NamedTuple):
    """What a training step needs to update parameters.

    Attributes:
      transformation: an optax transformation of the trainable parameters, `partition.split(params)[0]`.
      schedule: step -> learning rate, for the log; multiples of it are in the groups.
      partition: what trains.
      groups: rate and decay of everything that trains, by the names that the groups have in the state.
    """

    transformation: optax.GradientTransformationExtraArgs
    schedule: Schedule
    partition: Partition
    groups: Mapping[str, Group]

    def __str__(self) -> str:
        lines = [str(self.partition), "", f"{'leaves':>8} {'parameters':>14} {'rate':>14}  weight decay"]
        for name, group in self.groups.items():
            size = sum(leaf.size for leaf in group.leaves)
            text = f"{group.weight_decay:<12g}  {name}, e.g. {group.leaves[0].path}"
            lines.append(f"{len(group.leaves):8,d} {size:14,d} {group.rate:14g}  {text}")
        return "\n".join(lines)


def build_optimizer(
    params: Mapping[str, Any],
    *,
    name: str = "adamw",
    learning_rate: float,
    schedule: Mapping[str, Any] | None = None,
    total_steps: int | None = None,
    weight_decay: float = 0.0,
    grad_clip_norm: float | None = None,
    rules: Sequence[RuleLike] = (Rule("**"),),
    trains: Sequence[tuple[str, bool]] = (("**", True),),
    undecayed: Sequence[str] | None = None,
    layer_decay: float | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    **optimizer_arguments: Any,
) -> Optimizer:
    """Any optax optimizer with rates, decays and freezing by parameter path.

    Leaves are grouped by rate and decay, and each group has an optimizer of its own, like the parameter
    groups of PyTorch: `optax.<name>(rate * schedule, weight_decay=decay, **optimizer_arguments)`. Before them
    the norm of the gradient is clipped, after them the bounds are kept.

    Args:
      params: nested dict of all parameters, as arrays or as `jax.ShapeDtypeStruct`.
      name: a function of `optax` or `optax.contrib`, see `optimizer_names`.
      learning_rate: the peak of the schedule.
      schedule: `{"name": ..., **arguments}` for `build_schedule`; None = constant.
      total_steps: length of the run, where the schedule asks for it.
      weight_decay: of matrices; in the optimizer's own manner if it has one, else decoupled and times the
        rate, as in AdamW.
      grad_clip_norm: largest global norm of the gradient of what trains; None = not clipped.
      rules: ordered; each a `Rule` or a pair `(pattern, {setting: value})` with the settings `frozen`, `rate`
        and `weight_decay`. The first that matches a leaf claims it.
      trains: ordered pairs `(pattern, whether it trains)` of a method that freezes a part; a leaf trains when
        its rule and this agree.
      undecayed: patterns of leaves that are not decayed, beside those with less than two axes; None = biases,
        norms, layer scales, embeddings of class, registers and positions.
      layer_decay: factor of the rate from one layer to the one before it, see `layer_rates`; None = none.
      bounds: pattern -> `(low, high)`, kept by parameters after each step, see `clip_params`.
      **optimizer_arguments: of the optax function, by its names (`b1`, `b2`, `eps`, ...).

    Returns:
      The optimizer; print it for a table of what trains and how.

    Raises:
      NoMatchError: a pattern matches no parameter.
      ValueError: a name or argument is unknown, missing or impossible; a leaf has no rule, or a rule no leaf;
        nothing trains; a rule sets a decay for leaves that are never decayed.

    >>> import jax.numpy as jnp
    >>> params = {"text": {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)}, "log_scale": jnp.ones(())}
    >>> optimizer = build_optimizer(
    ...     params, learning_rate=1e-3, b2=0.98, weight_decay=0.2, bounds={"log_scale": (0.0, 4.6052)},
    ...     rules=[("text/bias", {"frozen": True}), ("**", {})])
    >>> print(optimizer)
      leaves      trainable         frozen  rule
           1              0              2  text/bias frozen=True
           2              9              0  **
           3              9              2  (total)
    <BLANKLINE>
      leaves     parameters           rate  weight decay
           1              1              1  0             group_0, e.g. log_scale
           1              8              1  0.2           group_1, e.g. text/kernel
    >>> trainable, frozen = optimizer.partition.split(params)
    >>> state = optimizer.transformation.init(trainable)
    """
    partition = partition_params(params, rules, trains=trains)
    shape_of_rate = dict(schedule or {"name": "constant"})
    if "name" not in shape_of_rate:
        raise ValueError(f"build_optimizer: schedule is {shape_of_rate}, expected a mapping with 'name'")
    rate_at = build_schedule(
        shape_of_rate.pop("name"), learning_rate=learning_rate, total_steps=total_steps, **shape_of_rate
    )
    groups = _group(partition, weight_decay, undecayed, layer_decay)
    optimizers = {
        key: make_optimizer(name, _scaled(rate_at, group.rate), group.weight_decay, optimizer_arguments)
        for key, group in groups.items()
    }
    links: list[optax.GradientTransformation] = [
        by_group(optimizers, {key: [leaf.path for leaf in group.leaves] for key, group in groups.items()})
    ]
    if grad_clip_norm is not None:
        if not grad_clip_norm > 0.0:
            raise ValueError(f"build_optimizer: grad_clip_norm is {grad_clip_norm}, expected above 0, or None")
        links.insert(0, optax.clip_by_global_norm(grad_clip_norm))
    if bounds:
        match([leaf.path for leaf in partition.leaves], list(bounds))
        # What is frozen cannot leave its bounds.
        links.append(clip_params({p: b for p, b in bounds.items() if _matching(partition.trainable, p)}))
    return Optimizer(optax.chain(*links), rate_at, partition, groups)


def _group(
    partition: Partition, weight_decay: float, undecayed: Sequence[str] | None, layer_decay: float | None
) -> dict[str, Group]:
    leaves = sorted(partition.trainable)  # by path, so that the groups do not depend on the order of a tree
    everything = [leaf.path for leaf in partition.leaves]
    patterns = UNDECAYED if undecayed is None else undecayed
    excluded = match(everything, patterns, allow_unmatched=undecayed is None).matched
    by_layer = {} if layer_decay is None else layer_rates(everything, decay=layer_decay)
    decayed = {leaf for leaf in leaves if len(leaf.shape) > 1 and leaf.path not in excluded}
    for index, rule in enumerate(partition.rules):
        if rule.weight_decay and not any(leaf.rule == index for leaf in decayed):
            raise ValueError(
                f"build_optimizer: {rule} decays nothing: none of its leaves trains, has two axes and is not "
                "in undecayed; leave its weight_decay out, or give undecayed"
            )
    members: dict[tuple[float, float], list[Leaf]] = {}
    for leaf in leaves:
        rule = partition.rules[leaf.rule]
        decay = weight_decay if rule.weight_decay is None else rule.weight_decay
        if not decay >= 0.0:
            raise ValueError(f"build_optimizer: the weight decay of {leaf.path} is {decay}, expected 0 or more")
        key = (rule.rate * by_layer.get(leaf.path, 1.0), decay if leaf in decayed else 0.0)
        members.setdefault(key, []).append(leaf)
    return {
        f"group_{index}": Group(rate, decay, tuple(group))
        for index, ((rate, decay), group) in enumerate(members.items())
    }


def _scaled(schedule: Schedule, rate: float) -> Schedule:
    def scaled(step: ArrayLike) -> jax.Array:
        return rate * schedule(step)

    return schedule if rate == 1.0 else scaled


def _matching(leaves: Sequence[Leaf], pattern: str) -> bool:
    return any(matches(leaf.path, pattern) for leaf in leaves)
