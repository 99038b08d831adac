"""A model that came from elsewhere: it embeds, and other runs start from it."""

import jax

from mmjax.config import Section, call
from mmjax.method import Aux, Batch, Method, Params, Stats
from mmjax.methods import _towers
from mmjax.models import DualEncoder, build_dual_encoder


def build(config: Section) -> Method:
    """The method on the towers of `config.model`; `config.method` has no settings."""
    settings = dict(config.method)
    settings.pop("name")
    return call(pretrained, settings, call(build_dual_encoder, config.model))


def pretrained(model: DualEncoder) -> Method:
    """The encoders of the towers that a model has, and no loss.

    Args:
      model: one tower or both.

    Returns:
      The method; its loss raises ValueError, which says how to train from it.
    """

    def loss(params: Params, stats: Stats, batch: Batch, rng: jax.Array, step: jax.Array) -> tuple[jax.Array, Aux]:
        raise ValueError(
            "pretrained: an imported model has no loss to train; name another method, such as 'lit', and take towers "
            f"from this run by config.init_from, a workdir for each of {', '.join(_towers.tower_names(model))}"
        )

    return Method(_towers.initializer(model), loss, _towers.encoders(model))
