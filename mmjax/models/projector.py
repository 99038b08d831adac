"""Projection of one model's features into another's space."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from mmjax.models.layers import Dense
from mmjax.ops.activations import gelu


class MlpProjector(nn.Module):
    """`depth` Dense layers with the exact GELU between them: `dense_1(gelu(dense_0(x)))` of depth 2, linear of depth 1.

    Parameters `dense_0` `[Di, features]`, `dense_1` `[features, features]`, ...

    Attributes:
      features: width of every layer's output.
      depth: number of layers, at least 1.
      dtype: of the computation; None = that of the inputs and parameters.
      param_dtype: of the parameters.

    Reference:
      Liu et al., "Improved Baselines with Visual Instruction Tuning" (LLaVA-1.5), CVPR 2024, section 3.2.
    """

    features: int
    depth: int = 2
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., Di]` -> `[..., features]`.

        Raises:
          ValueError: `depth` is below 1.
        """
        if self.depth < 1:
            raise ValueError(f"MlpProjector: depth is {self.depth}, expected 1 or more")
        for i in range(self.depth):
            x = x if i == 0 else gelu(x)
            x = Dense(self.features, dtype=self.dtype, param_dtype=self.param_dtype, name=f"dense_{i}")(x)
        return x
