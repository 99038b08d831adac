import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.ops import drop_tokens

TOKENS = jax.random.normal(jax.random.key(0), (400, 6, 2))


def test_kept_tokens_stand_at_their_places_in_order():
    kept, places = drop_tokens(jax.random.key(1), TOKENS, num_kept=4)
    assert places.shape == (400, 4)
    assert bool(jnp.all(jnp.diff(places) > 0))
    for b in range(5):
        np.testing.assert_array_equal(kept[b], TOKENS[b][places[b]])


def test_every_token_is_as_likely_and_examples_choose_apart():
    _, places = drop_tokens(jax.random.key(1), TOKENS, num_kept=2)
    share = np.bincount(np.ravel(places), minlength=6) / 400
    np.testing.assert_allclose(share, 2 / 6, atol=0.1)
    assert len(np.unique(places, axis=0)) == 15  # all pairs


def test_all_kept_is_the_identity():
    kept, _ = drop_tokens(jax.random.key(1), TOKENS, num_kept=6)
    np.testing.assert_array_equal(kept, TOKENS)


@pytest.mark.parametrize("num_kept", [0, 7])
def test_impossible_numbers_are_refused(num_kept):
    with pytest.raises(ValueError, match=f"num_kept is {num_kept}, expected 1 to 6"):
        drop_tokens(jax.random.key(0), TOKENS, num_kept=num_kept)
