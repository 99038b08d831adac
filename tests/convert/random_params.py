"""Random parameters for a model of any towers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.convert import Bundle
from mmjax.convert.bundle import parameter_shapes


def with_random_params(bundle: Bundle) -> Bundle:
    """Every leaf near its usual value, and none at it."""
    rng = np.random.default_rng(0)

    def draw(path: Any, leaf: Any) -> jax.Array:
        centre = {"scale": 1.0, "log_scale": 2.5}.get(path[-1].key, 0.0)
        return jnp.asarray(centre + 0.2 * rng.standard_normal(leaf.shape), jnp.float32)

    return bundle._replace(params=jax.tree_util.tree_map_with_path(draw, parameter_shapes(bundle)))
