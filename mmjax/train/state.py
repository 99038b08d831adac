"""What a step of training reads and writes."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from mmjax.method import Params, Stats, Variables
from mmjax.optim import Optimizer


@struct.dataclass
class TrainState:
    """The state of a run; a pytree.

    Attributes:
      step: number of updates made, int32.
      trainable: parameters with a gradient; frozen ones are a tree apart, with neither gradient nor optimizer state.
      frozen: parameters without.
      opt_state: of the optax transformation, over `trainable` alone.
      stats: the method's.
      ema: moving average of `trainable`, or None.
      key: raw data of the run's random key; a step's key is folded from it and `step`.
      healthy: False from the first non-finite loss or gradient on: the state then stays as it was before that step.
    """

    step: jax.Array
    trainable: Params
    frozen: Params
    opt_state: Any
    stats: Stats
    ema: Params | None
    key: jax.Array
    healthy: jax.Array


def create_state(variables: Variables, optimizer: Optimizer, *, key: jax.Array, ema: bool = False) -> TrainState:
    """The state before the first step.

    Args:
      variables: what the method's init gave.
      optimizer: from `mmjax.optim.build_optimizer`.
      key: the run's random key.
      ema: whether to keep a moving average of the trainable parameters.
    """
    trainable, frozen = optimizer.partition.split(variables.params)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        trainable=trainable,
        frozen=frozen,
        opt_state=optimizer.transformation.init(trainable),
        stats=variables.stats,
        ema=jax.tree.map(jnp.copy, trainable) if ema else None,
        key=jax.random.key_data(key),
        healthy=jnp.ones((), bool),
    )
