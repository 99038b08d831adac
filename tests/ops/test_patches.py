import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.ops.patches import patchify


def test_order_against_loops():
    images = np.random.default_rng(0).normal(size=(2, 4, 6, 3))
    patches = patchify(jnp.asarray(images), patch_size=2)
    assert patches.shape == (2, 6, 12)
    for row, column in np.ndindex(2, 3):
        cell = images[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        np.testing.assert_allclose(patches[:, 3 * row + column], cell.reshape(2, 12), rtol=1e-6)


def test_sides_must_be_divisible():
    with pytest.raises(ValueError, match="images of 4 x 5 pixels are not divisible by patch_size 2"):
        patchify(jnp.ones((1, 4, 5, 3)), patch_size=2)
