import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.models import TextTransformer
from mmjax.paths import flatten
from tests.models.random_params import random_params

KEY = jax.random.key(0)
SETTINGS = {"vocab_size": 11, "context_length": 7, "width": 8, "num_layers": 1, "num_heads": 2, "output_dim": 5}
IDS = jnp.array([[1, 4, 9, 2, 10, 0], [1, 10, 3, 3, 5, 7]])
EOS = 10
POOLS = ("argmax", "eos", "first", "last", "mean")


@pytest.fixture(scope="module")
def params():
    return {"params": random_params(TextTransformer(**SETTINGS), IDS)}


@functools.partial(jax.jit, static_argnames=("causal", "attend_padding", "pool", "dtype"))
def apply(params, ids, mask=None, **settings):
    return TextTransformer(**SETTINGS, **settings, eos_id=EOS).apply(params, ids, mask)


def test_parameters():
    model = TextTransformer(**SETTINGS, proj_bias=True)
    variables = jax.eval_shape(model.init, KEY, IDS)
    shapes = {name: x.shape for name, x in flatten(variables["params"]).items() if "block" not in name}
    assert shapes == {
        "token_embedding/embedding": (11, 8),
        "position_embedding": (7, 8),
        "ln_final/scale": (8,),
        "ln_final/bias": (8,),
        "proj/kernel": (8, 5),
        "proj/bias": (5,),
    }


@pytest.mark.parametrize("causal", [True, False])
def test_a_later_token_reaches_earlier_ones_only_without_causality(params, causal):
    changed = IDS.at[:, 3].set(8)
    before, after = (apply(params, ids, causal=causal)[1]["tokens"] for ids in (IDS, changed))
    assert bool(jnp.all(jnp.any(before[:, 3:] != after[:, 3:], axis=-1)))
    if causal:
        np.testing.assert_array_equal(before[:, :3], after[:, :3])
    else:
        assert bool(jnp.all(jnp.any(before[:, :3] != after[:, :3], axis=-1)))


@pytest.mark.parametrize(
    ("pool", "positions"), [("argmax", [4, 1]), ("eos", [4, 1]), ("first", [0, 0]), ("last", [5, 5])]
)
def test_pooling_reads_its_token(params, pool, positions):
    embeds, intermediates = apply(params, IDS, pool=pool)
    pooled = intermediates["tokens"][jnp.arange(2), jnp.array(positions)]
    np.testing.assert_array_equal(intermediates["pooled"], pooled)
    np.testing.assert_allclose(embeds, pooled @ params["params"]["proj"]["kernel"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("causal", [True, False])
def test_masked_padding_is_absent(params, causal):
    mask = jnp.array([[True] * 6 + [False], [True] * 4 + [False] * 3])
    padded = jnp.concatenate([IDS, jnp.full((2, 1), EOS)], axis=1)

    @jax.jit
    def with_and_without(params):
        results = {}
        for pool in POOLS:
            alone = [apply(params, IDS[i : i + 1, :n], causal=causal, pool=pool)[0][0] for i, n in enumerate((6, 4))]
            results[pool] = apply(params, padded, mask, causal=causal, pool=pool)[0], jnp.stack(alone)
        return results

    for pool, (masked, alone) in with_and_without(params).items():
        np.testing.assert_allclose(masked, alone, rtol=1e-4, atol=1e-5, err_msg=pool)


@pytest.mark.parametrize("pool", POOLS)
def test_padding_that_is_attended_to_is_text(params, pool):
    ids = jnp.concatenate([IDS, jnp.full((2, 1), EOS)], axis=1)
    mask = jnp.arange(7) < jnp.array([[6], [4]])
    settings = {"causal": False, "pool": pool}
    embeds, _ = apply(params, ids, mask, attend_padding=True, **settings)
    np.testing.assert_array_equal(embeds, apply(params, ids, **settings)[0])
    other = ids.at[1, 5].set(3)  # Padding, by the mask.
    assert bool(jnp.any(apply(params, other, mask, attend_padding=True, **settings)[0] != embeds))


def test_padding_that_is_attended_to_must_be_there(params):
    with pytest.raises(ValueError, match=r"\(2, 6\), but attend_padding .* pad every text to context_length 7"):
        apply(params, IDS, attend_padding=True)
    jax.eval_shape(TextTransformer(**SETTINGS, attend_padding=True).init, KEY, IDS)


@pytest.mark.parametrize(("pool", "position"), [("first", 2), ("last", 4)])
def test_first_and_last_pass_over_padding_on_either_side(params, pool, position):
    mask = jnp.array([[False, False, True, True, True, False]] * 2)
    _, intermediates = apply(params, IDS, mask, pool=pool)
    np.testing.assert_array_equal(intermediates["pooled"], intermediates["tokens"][:, position])


def test_a_text_of_padding_alone_is_finite(params):
    mask = jnp.zeros((2, 6), bool).at[0].set(True)

    @jax.jit
    @jax.grad
    def gradients(params):
        return sum(jnp.sum(apply(params, IDS, mask, causal=False, pool=pool)[0] ** 2) for pool in POOLS)

    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradients(params)))


def test_mean_of_no_token_is_zero(params):
    _, intermediates = apply(params, IDS, jnp.zeros((2, 6), bool), pool="mean")
    np.testing.assert_array_equal(intermediates["pooled"], 0.0)


def test_bfloat16_compute_stays_near(params):
    expected, _ = apply(params, IDS)
    embeds, intermediates = apply(params, IDS, dtype="bfloat16")
    assert {x.dtype for x in jax.tree.leaves((embeds, intermediates))} == {jnp.dtype("bfloat16")}
    error = jnp.linalg.norm(embeds.astype(jnp.float32) - expected) / jnp.linalg.norm(expected)
    assert 0 < float(error) < 0.02


@pytest.mark.parametrize(
    ("args", "settings", "error", "message"),
    [
        ((jnp.ones(3, jnp.int32),), {}, ValueError, r"token_ids has shape \(3,\), expected 2 axes"),
        ((jnp.ones((1, 3)),), {}, TypeError, "token_ids has dtype float32, expected integers"),
        ((jnp.ones((1, 8), jnp.int32),), {}, ValueError, r"shape \(1, 8\), longer than context_length 7; truncate"),
        ((IDS, jnp.ones((2, 5), bool)), {}, ValueError, r"token_ids \(2, 6\), text_mask \(2, 5\)"),
        ((IDS, jnp.ones((2, 6))), {}, TypeError, "text_mask has dtype float32, expected bool"),
        (
            (IDS,),
            {"pool": "max"},
            ValueError,
            "pool is 'max', expected one of 'argmax', 'eos', 'first', 'last', 'mean'",
        ),
    ],
)
def test_bad_input_is_named(args, settings, error, message):
    with pytest.raises(error, match=f"TextTransformer: .*{message}"):
        jax.eval_shape(TextTransformer(**SETTINGS | settings).init, KEY, *args)
