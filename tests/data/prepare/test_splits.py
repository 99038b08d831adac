import hashlib

import pytest

from mmjax.data.prepare._splits import held_out


def test_ends():
    assert not any(held_out(str(i), share=0.0) for i in range(100))
    assert all(held_out(str(i), share=1.0) for i in range(100))


def test_a_larger_share_holds_the_smaller_one():
    names = [f"name {i}" for i in range(2000)]
    tenth, half = ({name for name in names if held_out(name, share=share)} for share in (0.1, 0.5))
    assert tenth < half
    # Six standard deviations of a binomial around the mean.
    assert abs(len(tenth) - 200) < 6 * (2000 * 0.1 * 0.9) ** 0.5
    assert abs(len(half) - 1000) < 6 * (2000 * 0.25) ** 0.5


@pytest.mark.parametrize("name", ["GRINNING FACE", "ö"])
def test_the_hash_is_sha256(name):
    fraction = int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) / 2**64
    assert held_out(name, share=fraction + 1e-9)
    assert not held_out(name, share=fraction - 1e-9)
