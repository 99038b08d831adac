import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.ops import pool_text

TOKENS = jnp.arange(12.0).reshape(3, 4, 1)  # token t of text b holds 4b + t
IDS = jnp.array([[7, 1, 9, 0], [7, 9, 9, 0], [7, 1, 2, 3]])


@pytest.mark.parametrize(
    ("pool", "positions"),
    [("argmax", [2, 1, 0]), ("eos", [2, 1, 0]), ("first", [0, 0, 0]), ("last", [3, 3, 3])],
)
def test_positions(pool, positions):
    """Row 1 has the largest id twice: the first counts. Row 2 has no end-of-text: position 0."""
    np.testing.assert_array_equal(
        pool_text(TOKENS, IDS, pool=pool, eos_id=9)[:, 0], [4 * b + t for b, t in enumerate(positions)]
    )


def test_eos_need_not_be_the_largest_id():
    np.testing.assert_array_equal(pool_text(TOKENS, IDS, pool="eos", eos_id=1)[:, 0], [1, 4, 9])


def test_dtype_is_kept():
    assert pool_text(TOKENS.astype(jnp.bfloat16), IDS).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("arguments", "settings", "error", "message"),
    [
        ((TOKENS, IDS), {"pool": "max"}, ValueError, r"pool_text: pool is 'max', expected one of 'argmax', 'eos'"),
        ((TOKENS, IDS), {"pool": "eos"}, ValueError, r"needs eos_id, found None"),
        ((TOKENS, IDS[:, :3]), {}, ValueError, r"token_ids has shape \(3, 3\), expected \(3, 4\)"),
        ((TOKENS[0], IDS), {}, ValueError, r"tokens has shape \(4, 1\), expected 3 axes"),
        ((TOKENS, IDS * 1.0), {}, TypeError, r"token_ids has dtype float32, expected integers"),
    ],
)
def test_errors(arguments, settings, error, message):
    with pytest.raises(error, match=message):
        pool_text(*arguments, **settings)
