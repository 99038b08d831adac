"""One update: all that research code needs beside a method and an optimizer."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from mmjax.method import Batch, Method, Params, SplitLoss
from mmjax.optim import Optimizer, accumulate_gradients, cached_value_and_grad, ema_update
from mmjax.train.state import TrainState

Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


def make_train_step(
    method: Method, optimizer: Optimizer, *, accumulate: int = 1, exact: bool = True, ema_decay: float | None = None
) -> Step:
    """A pure function `(state, batch) -> (state, metrics)`; jit it with the state donated.

    A step whose loss or gradient is not finite changes nothing, and neither does any after it: `state.healthy` tells.

    Args:
      method: gives the loss.
      optimizer: gives the update and the partition; only trainable parameters are differentiated.
      accumulate: number of micro-batches that a batch is computed in, one after the other.
      exact: whether the gradient is that of the whole batch, by cached embeddings (`cached_value_and_grad`), at the
        cost of a second forward. Otherwise the micro-batches' own gradients are averaged (`accumulate_gradients`):
        the same for a loss that is a mean over examples; a contrast then sees its micro-batch only.
      ema_decay: decay of the moving average of the parameters, in [0, 1); None keeps none.

    Returns:
      The step. Its metrics are scalars: `loss`, `loss/<term>`, `grad_norm`, `learning_rate`, and the
      method's own.

    Raises:
      ValueError: several exact micro-batches of a loss that is not a `SplitLoss`.
    """
    loss, cached = method.loss, exact and accumulate > 1
    if cached and not isinstance(loss, SplitLoss):
        raise ValueError(
            f"make_train_step: {accumulate} exact micro-batches need a mmjax.method.SplitLoss, found "
            f"{getattr(loss, '__name__', loss)!r}, which cannot be cut; split it into embed and head, or average the "
            "micro-batches' own gradients with exact=False (config.accumulate_exactly): right for a mean over "
            "examples, while a contrast then sees its micro-batch only"
        )

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        rng = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)

        def of_trainable(function: Callable[..., Any]) -> Callable[..., Any]:
            def fn(trainable: Any, *args: Any) -> Any:
                return function(optimizer.partition.join(trainable, state.frozen), state.stats, *args, state.step)

            return fn

        if cached and isinstance(loss, SplitLoss):
            chunk = math.ceil(len(jax.tree.leaves(batch)[0]) / accumulate)
            embed, head = of_trainable(loss.embed), of_trainable(loss.head)
            gradient = cached_value_and_grad(embed, head, chunk=chunk, has_aux=True)
        else:
            gradient = accumulate_gradients(jax.value_and_grad(of_trainable(loss), has_aux=True), accumulate)
        (value, aux), grads = gradient(state.trainable, batch, rng)
        metrics = {
            "loss": value,
            **{f"loss/{name}": term.value for name, term in aux.terms.items()},
            **aux.metrics,
            "grad_norm": optax.tree.norm(grads),
            "learning_rate": optimizer.schedule(state.step),
        }

        def update(state: TrainState) -> TrainState:
            updates, opt_state = optimizer.transformation.update(grads, state.opt_state, state.trainable)
            trainable = cast(Params, optax.apply_updates(state.trainable, updates))
            ema = None if ema_decay is None else ema_update(state.ema, trainable, decay=ema_decay)
            return dataclasses.replace(
                state, step=state.step + 1, trainable=trainable, opt_state=opt_state, stats=aux.stats, ema=ema
            )

        healthy = state.healthy & jnp.isfinite(value) & jnp.isfinite(metrics["grad_norm"])
        # A branch updates the donated state in place; a choice between old and new would hold both of them.
        state = jax.lax.cond(healthy, update, lambda state: state, state)
        return dataclasses.replace(state, healthy=healthy), metrics

    return step
