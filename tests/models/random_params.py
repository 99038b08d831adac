"""Parameters of a module without compiling its initialisation."""

from typing import Any

import jax
import numpy as np
from flax import linen as nn


def random_params(module: nn.Module, *inputs: Any, spread: float = 0.3, **named: Any) -> Any:
    """Normal draws for every parameter, biases and scales too."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs, **named)["params"]
    return jax.tree.map(lambda x: (spread * rng.normal(size=x.shape)).astype(x.dtype), shapes)
