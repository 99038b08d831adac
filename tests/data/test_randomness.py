import hashlib

import numpy as np
import pytest

from mmjax.data.randomness import Draws, epoch_seed


def test_numbers_are_the_hash():
    # The leading 53 bits of little-endian 64-bit words of SHAKE-256.
    digest = hashlib.shake_256(b"3/1/41/flip").digest(16)
    words = [int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")]
    np.testing.assert_array_equal(Draws(3, 1, 41).uniform("flip", 2), [(word >> 11) / 2**53 for word in words])


def test_numbers_are_uniform():
    numbers = np.concatenate([Draws(0, 0, index).uniform("crop", 8) for index in range(500)])
    assert ((numbers >= 0) & (numbers < 1)).all()
    counts, _ = np.histogram(numbers, bins=10, range=(0, 1))
    assert (abs(counts - 400) < 5 * 400**0.5).all()


@pytest.mark.parametrize("other", [(1, 0, 0, "a"), (0, 1, 0, "a"), (0, 0, 1, "a"), (0, 0, 0, "b"), (0, 0, 11, "a")])
def test_each_part_of_the_key_counts(other):
    *key, name = other
    assert Draws(0, 0, 0).uniform("a", 1)[0] != Draws(*key).uniform(name, 1)[0]


def test_keys_do_not_run_together():
    assert Draws(1, 11, 1).uniform("a", 1)[0] != Draws(11, 1, 1).uniform("a", 1)[0]


def test_epoch_seeds_are_unrelated():
    seeds = [epoch_seed(seed, epoch) for seed in range(30) for epoch in range(30)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**32 for seed in seeds)
