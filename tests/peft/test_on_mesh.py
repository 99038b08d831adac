import pytest

from tests import devices


@pytest.mark.slow
def test_a_step_with_adapters_on_a_mesh_equals_the_step_on_one_device():
    found = devices.run("tests.peft.on_mesh")
    assert found == {"data": {"equal": True, "split": False}, "all": {"equal": True, "split": True}}
