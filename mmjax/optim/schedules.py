"""Learning rates and other quantities as functions of the step."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from mmjax.paths import suggestion

Schedule = Callable[[ArrayLike], jax.Array]


def linear_schedule(step: ArrayLike, *, start: float, end: float, num_steps: float) -> jax.Array:
    """A line from `start` to `end`, then constant.

    `start + (end - start) clip(step / num_steps, 0, 1)`

    Args:
      step: int, any shape.
      start: value at step 0.
      end: value from `num_steps` on.
      num_steps: length of the line, above 0.

    Returns:
      Float32, the shape of `step`.

    >>> linear_schedule(jnp.array([0, 1, 4, 9]), start=0.0, end=2.0, num_steps=4).tolist()
    [0.0, 0.5, 2.0, 2.0]
    """
    return start + (end - start) * jnp.clip(_float(step) / num_steps, 0.0, 1.0)


def cosine_schedule(step: ArrayLike, *, start: float, end: float, num_steps: float) -> jax.Array:
    """Half a period of a cosine from `start` to `end`; past `num_steps` the wave goes on.

    `end + (start - end) (1 + cos(pi step / num_steps)) / 2`

    Args:
      step: int, any shape.
      start: value at step 0.
      end: value at step `num_steps`.
      num_steps: half the period, above 0.

    Returns:
      Float32, the shape of `step`.

    >>> cosine_schedule(jnp.array([0, 2, 4]), start=3.0, end=1.0, num_steps=4).round(5).tolist()
    [3.0, 2.0, 1.0]
    """
    return end + 0.5 * (start - end) * (1.0 + jnp.cos(jnp.pi * _float(step) / num_steps))


def warmup_cosine(
    step: ArrayLike, *, base_lr: float, warmup_steps: int, total_steps: int, end_lr: float = 0.0
) -> jax.Array:
    """Linear warm-up, then half a cosine down to `end_lr` at `total_steps`.

    `base_lr (step + 1) / warmup_steps` while `step < warmup_steps`, then
    `end_lr + (base_lr - end_lr) (1 + cos(pi (step - warmup_steps) / (total_steps - warmup_steps))) / 2`

    Args:
      step: int, any shape, in [0, total_steps]: past it the wave would rise again.
      base_lr: the peak.
      warmup_steps: in [0, total_steps).
      total_steps: length of the run.
      end_lr: the rate at the end.

    Returns:
      Float32, the shape of `step`.

    Raises:
      ValueError: `warmup_steps` is out of its range.

    >>> warmup_cosine(jnp.arange(5), base_lr=1.0, warmup_steps=2, total_steps=4).round(5).tolist()
    [0.5, 1.0, 1.0, 0.5, 0.0]

    Reference: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021,
    section 2.5; mlfoundations/open_clip at 89fb801, `cosine_lr`.
    """
    _check_warmup("warmup_cosine", warmup_steps, total_steps)
    decay = cosine_schedule(
        _float(step) - warmup_steps, start=base_lr, end=end_lr, num_steps=total_steps - warmup_steps
    )
    return _warm_up(step, base_lr, warmup_steps, decay)


def warmup_linear(
    step: ArrayLike, *, base_lr: float, warmup_steps: int, total_steps: int, end_lr: float = 0.0
) -> jax.Array:
    """Linear warm-up as in `warmup_cosine`, then a line down to `end_lr` at `total_steps`, then `end_lr`.

    Args, Returns, Raises: as for `warmup_cosine`.

    >>> warmup_linear(jnp.arange(5), base_lr=1.0, warmup_steps=2, total_steps=4).tolist()
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    _check_warmup("warmup_linear", warmup_steps, total_steps)
    decay = linear_schedule(
        _float(step) - warmup_steps, start=base_lr, end=end_lr, num_steps=total_steps - warmup_steps
    )
    return _warm_up(step, base_lr, warmup_steps, decay)


def warmup_constant(step: ArrayLike, *, base_lr: float, warmup_steps: int) -> jax.Array:
    """Linear warm-up as in `warmup_cosine`, then `base_lr`.

    >>> warmup_constant(jnp.arange(4), base_lr=1.0, warmup_steps=2).tolist()
    [0.5, 1.0, 1.0, 1.0]
    """
    return _warm_up(step, base_lr, warmup_steps, _constant(step, base_lr=base_lr))


def warmup_rsqrt(step: ArrayLike, *, base_lr: float, warmup_steps: int) -> jax.Array:
    """Linear warm-up to `base_lr`, then the inverse square root of the step.

    `base_lr min((step + 1) / warmup_steps, sqrt(warmup_steps / (step + 1)))`

    Args:
      step: int, any shape.
      base_lr: the peak, at step `warmup_steps - 1`.
      warmup_steps: at least 1.

    Returns:
      Float32, the shape of `step`.

    Raises:
      ValueError: `warmup_steps` is below 1.

    >>> warmup_rsqrt(jnp.array([0, 3, 15]), base_lr=1.0, warmup_steps=4).tolist()
    [0.25, 1.0, 0.5]

    Reference: Vaswani et al., "Attention Is All You Need", 2017, equation 3, with the peak as the parameter.
    """
    if warmup_steps < 1:
        raise ValueError(f"warmup_rsqrt: warmup_steps is {warmup_steps}, expected at least 1")
    count = _float(step) + 1.0
    return base_lr * jnp.minimum(count / warmup_steps, jnp.sqrt(warmup_steps / count))


def _constant(step: ArrayLike, *, base_lr: float) -> jax.Array:
    return jnp.full(jnp.shape(step), base_lr, jnp.float32)


def _cosine(step: ArrayLike, *, base_lr: float, total_steps: int, end_lr: float = 0.0) -> jax.Array:
    return cosine_schedule(step, start=base_lr, end=end_lr, num_steps=total_steps)


_SCHEDULES: Mapping[str, Callable[..., jax.Array]] = {
    "constant": _constant,
    "cosine": _cosine,
    "warmup_constant": warmup_constant,
    "warmup_cosine": warmup_cosine,
    "warmup_linear": warmup_linear,
    "warmup_rsqrt": warmup_rsqrt,
}


def build_schedule(name: str, *, learning_rate: float, total_steps: int | None = None, **arguments: Any) -> Schedule:
    """The learning rate as a function of the step alone.

    Args:
      name: constant, cosine, warmup_constant, warmup_cosine, warmup_linear or warmup_rsqrt.
      learning_rate: the peak, `base_lr` of the schedule.
      total_steps: length of the run. A schedule that ends there keeps its last value afterwards; the others
        do not ask for it.
      **arguments: the schedule's own, such as `warmup_steps`.

    Returns:
      A function from int arrays to float32 arrays.

    Raises:
      ValueError: an unknown name, an unknown, missing or impossible argument.

    >>> schedule = build_schedule("warmup_linear", learning_rate=1.0, total_steps=8, warmup_steps=4)
    >>> schedule(jnp.array([0, 3, 6, 8, 99])).tolist()
    [0.25, 1.0, 0.5, 0.0, 0.0]
    """
    if name not in _SCHEDULES:
        raise ValueError(f"build_schedule: no schedule {name!r}; {suggestion(name, _SCHEDULES)}")
    function = _SCHEDULES[name]
    parameters = dict(inspect.signature(function).parameters)
    own = {n: p for n, p in parameters.items() if n not in ("step", "base_lr", "total_steps")}
    for argument in arguments:
        if argument not in own:
            raise ValueError(f"build_schedule: {name} has no argument {argument!r}; {suggestion(argument, own)}")
    missing = [n for n, p in own.items() if p.default is p.empty and n not in arguments]
    last = total_steps if "total_steps" in parameters else None
    fixed = {"base_lr": learning_rate, **arguments}
    if "total_steps" in parameters:
        fixed["total_steps"] = last
        missing += ["total_steps"] * (last is None)
    if missing:
        raise ValueError(f"build_schedule: {name} lacks {', '.join(map(repr, missing))}")

    def schedule(step: ArrayLike) -> jax.Array:
        return function(step if last is None else jnp.minimum(step, last), **fixed)

    schedule(0)  # impossible arguments fail here, not inside the compiled step
    return schedule


def _float(step: ArrayLike) -> jax.Array:
    return jnp.asarray(step).astype(jnp.float32)


def _warm_up(step: ArrayLike, base_lr: float, warmup_steps: int, after: jax.Array) -> jax.Array:
    rising = base_lr * (_float(step) + 1.0) / max(warmup_steps, 1)
    return jnp.where(jnp.asarray(step) < warmup_steps, rising, after)


def _check_warmup(function: str, warmup_steps: int, total_steps: int) -> None:
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"{function}: warmup_steps is {warmup_steps} and total_steps {total_steps}, "
            "expected 0 <= warmup_steps < total_steps"
        )
