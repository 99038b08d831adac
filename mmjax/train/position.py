"""The position of a run in its stream of examples, for any number of processes that share the stream."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from mmjax import parallel


def save_position(batches: Any) -> dict[str, Any]:
    """The state of the data iterators of all processes, as JSON holds it; all must call it."""
    states = parallel.gather(batches.get_state())
    return states[0] if len(states) == 1 else {"processes": states}


def restore_position(batches: Any, saved: Mapping[str, Any]) -> int:
    """Goes on from a saved position, also of a run on another number of processes.

    Args:
      batches: this process's iterator.
      saved: from `save_position`.

    Returns:
      How many examples are read a second time; above 0 only where the number of processes changed after unreadable
      records, which leave the processes at different places.

    Raises:
      ValueError: the position is of another stream.
    """
    states = saved.get("processes", [saved])
    shared = len(states) != jax.process_count()
    state, repeated = share_position(states, jax.process_count()) if shared else (states[jax.process_index()], 0)
    own = batches.get_state()["stream"]["shard"]
    batches.set_state({**state, "stream": {**state["stream"], "shard": own}})
    return repeated


def share_position(states: Sequence[Mapping[str, Any]], processes: int) -> tuple[dict[str, Any], int]:
    """The state of each of `processes` iterators that go on where those of `states` stopped.

    Process i of n reads places i, i + n, ... of the stream. What all have read together is its beginning.

    Args:
      states: of the iterators that stopped, one a process.
      processes: how many go on.

    Returns:
      The state, and how many examples that were read before come again.

    >>> state = {"position": 6, "seen": 6, "bad": 0, "bad_in_all": 0}
    >>> share_position([state, state], 1)[0]["position"], share_position([state], 3)[0]["position"]
    (12, 2)
    """
    unread = (state["position"] * len(states) + process for process, state in enumerate(states))
    position = min(unread) // processes
    counts = {name: sum(s[name] for s in states) // processes for name in ("seen", "bad", "bad_in_all")}
    return {**states[0], "position": position, **counts}, sum(s["position"] for s in states) - position * processes
