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


def keys_cubic(distance, a=-0.5):
    """Keys' cubic convolution kernel."""
    x = abs(distance)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


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


def naive_points(source, target):
    """Rows of cubic weights at the four nearest points, whatever the scale; beyond the edge the edge is repeated."""
    weights = np.zeros((target, source))
    for i in range(target):
        centre = (i + 0.5) * source / target - 0.5
        for j in range(-3, source + 3):
            weights[i, min(max(j, 0), source - 1)] += keys_cubic(j - centre, a=-0.75)
    return weights


@pytest.mark.parametrize("target", [(5, 6), (2, 3), (1, 9)])
def test_bicubic_takes_the_nearest_points(target):
    source = (3, 4)
    table = np.random.default_rng(0).normal(size=(2 + 12, 5)).astype(np.float32)
    rows, columns = (naive_points(s, t) for s, t in zip(source, target, strict=True))
    expected = np.einsum("ih,jw,hwd->ijd", rows, columns, table[2:].reshape(3, 4, 5)).reshape(-1, 5)
    resized = resize_positions(table, source=source, target=target, num_prefix=2, method="bicubic")
    np.testing.assert_array_equal(resized[:2], table[:2])
    np.testing.assert_allclose(resized[2:], expected, rtol=1e-5, atol=1e-6)


def test_bicubic_by_hand():
    # Half way between points the kernel is 19/32 and, one further, -3/32; the point before the first is the first.
    table = jnp.array([[32.0, 0.0], [0.0, 32.0], [0.0, 0.0], [0.0, 0.0]])
    resized = resize_positions(table, source=(1, 4), target=(1, 2), method="bicubic")
    np.testing.assert_allclose(resized, [[19 - 3, 19], [0, -3]], atol=1e-5)


@pytest.mark.parametrize("method", ["bicubic_antialias", "bicubic"])
def test_both_methods_are_those_of_torch(method):
    torch = pytest.importorskip("torch", reason="compares with torch.nn.functional.interpolate")
    table = np.random.default_rng(0).normal(size=(37 * 37, 3)).astype(np.float32)
    grid = torch.from_numpy(table.T.reshape(1, 3, 37, 37).copy())
    for target in ((16, 16), (8, 50)):
        antialias = method == "bicubic_antialias"
        wanted = torch.nn.functional.interpolate(grid, size=target, mode="bicubic", antialias=antialias)
        resized = resize_positions(table, source=(37, 37), target=target, method=method)
        np.testing.assert_allclose(resized.T.reshape(3, *target), wanted[0], atol=1e-5)


@pytest.mark.parametrize("method", ["bicubic_antialias", "bicubic"])
def test_resize_to_the_same_grid_changes_nothing(method):
    table = jnp.arange(12.0).reshape(6, 2)
    assert resize_positions(table, source=(2, 3), target=(2, 3), method=method) is table


def test_resize_keeps_a_constant_and_the_dtype():
    resized = resize_positions(jnp.full((4, 3), 0.3, jnp.bfloat16), source=(2, 2), target=(5, 7))
    assert resized.dtype == jnp.bfloat16
    np.testing.assert_allclose(resized.astype(jnp.float32), jnp.bfloat16(0.3).astype(jnp.float32), rtol=1e-6)


def test_resize_names_the_methods():
    with pytest.raises(ValueError, match="method is 'cubic', expected one of 'bicubic_antialias', 'bicubic'"):
        resize_positions(jnp.ones((4, 3)), source=(2, 2), target=(3, 3), method="cubic")


def test_resize_names_a_wrong_table():
    with pytest.raises(ValueError, match=r"table has 5 rows, expected 0 \+ 2 \* 2"):
        resize_positions(jnp.ones((5, 3)), source=(2, 2), target=(3, 3))
