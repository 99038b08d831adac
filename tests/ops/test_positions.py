import math

import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.ops import resize_positions, sincos_position_2d


def test_sincos_by_hand():
    # Width 8: two frequencies, 1 and 100^-(1/2) = 0.1. Token 5 of a 3 x 3 grid stands in row 1, column 2.
    expected = [math.sin(1), math.sin(0.1), math.cos(1), math.cos(0.1)]
    expected += [math.sin(2), math.sin(0.2), math.cos(2), math.cos(0.2)]
    table = sincos_position_2d(3, 3, 8, temperature=100.0)
    assert table.shape == (9, 8)
    np.testing.assert_allclose(table[5], expected, rtol=1e-6)


def test_sincos_counts_along_the_height_on_oblong_grids():
    # Height 2, width 3, one frequency: token 4 has a = 4 // 2 = 2 and b = 0.
    np.testing.assert_allclose(sincos_position_2d(2, 3, 4)[4], [math.sin(2), math.cos(2), 0, 1], atol=1e-7)


def test_sincos_needs_a_multiple_of_four():
    with pytest.raises(ValueError, match="features is 6, expected a multiple of 4"):
        sincos_position_2d(2, 2, 6)


def keys_cubic(distance):
    """Keys' cubic convolution kernel, a = -1/2."""
    x = abs(distance)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def naive_weights(source, target):
    """Rows of antialiased cubic weights: half-pixel centres, kernel stretched when shrinking, renormalised at edges."""
    weights = np.zeros((target, source))
    for i, j in np.ndindex(target, source):
        centre = (i + 0.5) * source / target
        weights[i, j] = keys_cubic((j + 0.5 - centre) / max(1.0, source / target))
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("target", [(5, 6), (2, 3), (3, 9)])
def test_resize_is_antialiased_cubic(target):
    source = (3, 4)
    table = np.random.default_rng(0).normal(size=(1 + 12, 2)).astype(np.float32)
    rows, columns = (naive_weights(s, t) for s, t in zip(source, target, strict=True))
    expected = np.einsum("ih,jw,hwd->ijd", rows, columns, table[1:].reshape(3, 4, 2)).reshape(-1, 2)
    resized = resize_positions(table, source=source, target=target, num_prefix=1)
    np.testing.assert_array_equal(resized[0], table[0])
    np.testing.assert_allclose(resized[1:], expected, rtol=1e-4, atol=1e-5)


def test_resize_to_the_same_grid_changes_nothing():
    table = jnp.arange(12.0).reshape(6, 2)
    assert resize_positions(table, source=(2, 3), target=(2, 3)) is table


def test_resize_keeps_a_constant_and_the_dtype():
    resized = resize_positions(jnp.full((4, 3), 0.3, jnp.bfloat16), source=(2, 2), target=(5, 7))
    assert resized.dtype == jnp.bfloat16
    np.testing.assert_allclose(resized.astype(jnp.float32), jnp.bfloat16(0.3).astype(jnp.float32), rtol=1e-6)


def test_resize_names_a_wrong_table():
    with pytest.raises(ValueError, match=r"table has 5 rows, expected 0 \+ 2 \* 2"):
        resize_positions(jnp.ones((5, 3)), source=(2, 2), target=(3, 3))
