import numpy as np
import pytest

from mmjax.data.shapes.hashing import code, mix

GOLDEN = 0x9E3779B97F4A7C15


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0xE220A8397B1DCDAF), (1, 0x6E789E6AA1B965F4), (2, 0x06C45D188009454F)]
)
def test_mix_gives_the_published_splitmix64_stream_of_seed_zero(step, expected):
    assert mix(step * GOLDEN) == expected


def test_mix_of_an_array_equals_mix_of_its_elements():
    bits = [0, 1, 2**63, 2**64 - 1, GOLDEN]
    mixed = mix(np.array(bits, np.uint64))
    assert mixed.dtype == np.uint64
    assert mixed.tolist() == [mix(b) for b in bits]


def test_mix_takes_integers_modulo_two_to_the_64():
    assert mix(-1) == mix(2**64 - 1)


def test_mix_of_neighbours_differs_in_about_half_of_the_bits():
    flips = [bin(mix(i) ^ mix(i + 1)).count("1") for i in range(2000)]
    assert np.mean(flips) == pytest.approx(32, abs=0.5)


def test_code_is_fixed_for_ever():
    # mix(crc32(b"")) with crc32(b"") = 0.
    assert code("") == 0xE220A8397B1DCDAF
    assert code("123456789") == mix(0xCBF43926)
