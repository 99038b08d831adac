"""A method small enough to follow by hand: `loss = mean((x @ kernel + shift - y)^2)`."""

import jax
import jax.numpy as jnp

from mmjax.method import Aux, Method, Term, Variables, weighted_sum
from mmjax.optim import build_optimizer


def toy_method(*, partition=(("**", True),)):
    def init(rng, batch):
        kernel = jax.random.normal(rng, (batch["x"].shape[-1],))
        return Variables({"head": {"kernel": kernel}, "shift": jnp.zeros(())}, {"seen": jnp.zeros(())})

    def loss(params, stats, batch, rng, step):
        error = batch["x"] @ params["head"]["kernel"] + params["shift"] - batch["y"]
        terms = {"square": Term(jnp.mean(error**2)), "decay": Term(jnp.sum(params["head"]["kernel"] ** 2), 0.5)}
        return weighted_sum(terms), Aux(terms, {}, {"seen": stats["seen"] + batch["x"].shape[0]})

    return Method(init, loss, {}, partition)


def toy_batch(seed=0, size=8, width=3):
    x = jax.random.normal(jax.random.key(seed), (size, width))
    return {"x": x, "y": x @ jnp.arange(1.0, width + 1) + 2.0}


def toy_optimizer(params, **settings):
    return build_optimizer(params, **({"name": "sgd", "learning_rate": 0.1} | settings))
