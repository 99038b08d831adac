"""Losses over all pairs on eight simulated devices: numbers, and what the compiled program does."""

import itertools

import pytest

from tests import devices
from tests.losses.on_mesh import CASES, EXCHANGES

B, D, SHARD = 1024, 16, 1024 // 8
FLOAT = 4


@pytest.fixture(scope="module")
def found():
    return devices.run("tests.losses.on_mesh")


def test_values_and_gradients_are_those_of_one_device(found):
    """Of embeddings, scale and bias, on 1, 2, 4 and 8 devices: no factor of their number anywhere."""
    assert len(found["differences"]) == len(CASES) + 4
    assert {key: value for key, value in found["differences"].items() if not value < 3e-6} == {}


@pytest.mark.parametrize("name", ["clip", "siglip", "distillation"])
def test_the_ring_passes_shards_to_neighbours_and_nothing_else(found, name):
    program = found["programs"][f"{name}/ring"]
    assert program["moved"].keys() == {"collective-permute", "all-reduce"}
    assert sum(program["moved"]["all-reduce"]) <= 2 * FLOAT  # the gradients of scale and bias
    steps = 8
    assert max(program["moved"]["collective-permute"]) == SHARD * D * FLOAT
    assert steps * sum(program["moved"]["collective-permute"]) < 8 * B * D * FLOAT


@pytest.mark.parametrize("name", ["clip", "distillation"])
def test_all_gather_moves_every_row_a_few_times(found, name):
    moved = found["programs"][f"{name}/all_gather"]["moved"]
    assert moved.keys() == {"all-gather", "all-to-all", "all-reduce"}
    assert sum(itertools.chain(*moved.values())) < 8 * B * D * FLOAT


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_no_array_is_larger_than_the_rows_that_a_device_holds(found, exchange):
    """So neither [B, B] = 2^20 numbers nor a device's share of it, 2^17, exist; in the ring not even [B, D]."""
    rows = {"ring": SHARD, "all_gather": B}[exchange]
    assert found["programs"][f"clip/{exchange}"]["largest"] == rows * D


def test_the_ring_needs_the_same_memory_on_any_number_of_devices(found):
    """At a constant local batch."""
    two, four, eight = (found["memory"][n] for n in ("2", "4", "8"))
    assert two == four == eight
