import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.models import MlpProjector
from tests.models.random_params import random_params

X = jax.random.normal(jax.random.key(0), (2, 3, 4))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_layers_with_exact_gelu_between_them(depth):
    params = random_params(MlpProjector(5, depth=depth), X)
    assert sorted(params) == [f"dense_{i}" for i in range(depth)]
    expected = np.asarray(X, np.float64)
    for i in range(depth):
        if i > 0:
            expected = np.vectorize(lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2)(expected)
        expected = expected @ params[f"dense_{i}"]["kernel"] + params[f"dense_{i}"]["bias"]
    found = MlpProjector(5, depth=depth).apply({"params": params}, X)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_dtypes():
    model = MlpProjector(5, dtype=jnp.bfloat16)
    params = jax.eval_shape(model.init, jax.random.key(0), X)["params"]
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert jax.eval_shape(model.apply, {"params": params}, X).dtype == jnp.bfloat16


def test_no_layer_is_an_error():
    with pytest.raises(ValueError, match="depth is 0, expected 1 or more"):
        jax.eval_shape(MlpProjector(5, depth=0).init, jax.random.key(0), X)
