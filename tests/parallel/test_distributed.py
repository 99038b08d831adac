import jax
import pytest

from mmjax import parallel
from mmjax.config import ConfigError


def test_outside_a_cluster_and_alone_nothing_is_started(monkeypatch):
    def not_found(*args):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", not_found)
    parallel.start_distributed()
    parallel.start_distributed("localhost:1", 1, 0)


def test_addresses_are_passed_on(monkeypatch):
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args: calls.append(args))
    parallel.start_distributed()
    parallel.start_distributed("host0:1234", 4, 3)
    assert calls == [(), ("host0:1234", 4, 3)]


def test_a_cluster_that_is_half_known_is_an_error(monkeypatch):
    def half_known(*args):
        raise ValueError("Number of processes must be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", half_known)
    with pytest.raises(ConfigError, match=r"Number of processes must be defined.*give coordinator"):
        parallel.start_distributed()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("host0:1", None, 0), "num_processes None.*give all three"),
        (("host0:1", 2, 2), "process_id is 2, expected 0 to 1 for 2 processes"),
        (("host0", 2, 1), "coordinator is 'host0', expected host:port"),
    ],
)
def test_arguments_that_contradict_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        parallel.start_distributed(*arguments)


def test_one_process_agrees_with_itself_at_once():
    agree = parallel.Agreement(2)
    assert agree(False, True) == (False, True)
    assert parallel.gather([1, "a"]) == [[1, "a"]]


@pytest.mark.parametrize("call", [parallel.together, parallel.on_first_process])
def test_an_error_is_raised_as_it_is_where_it_happened(call):
    def fail():
        raise KeyError("missing")

    with pytest.raises(KeyError, match="missing"):
        call(fail)
