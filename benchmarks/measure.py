"""Time and memory of several forms of one job."""

import contextlib
import json
import multiprocessing
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple


class Seconds(NamedTuple):
    """Medians: of the clock, and of the time that all cores spent, which others on the machine disturb less."""

    wall: float
    cpu: float


def timed(job: Callable[..., Any], *args: Any) -> Seconds:
    """What a call takes; the job returns when its work is done."""
    wall, cpu = time.perf_counter(), time.process_time()
    job(*args)
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def interleaved(jobs: Mapping[str, Callable[[], Any]], *, repeats: int) -> dict[str, Seconds]:
    """Runs all jobs in turn, `repeats` times after a first that does not count.

    A job returns when its work is done, or what it measured itself, as an `Apart` does.
    """
    spent: dict[str, list[Seconds]] = {name: [] for name in jobs}
    for _ in range(repeats + 1):
        for name, job in jobs.items():
            found: list[Any] = []
            seconds = timed(lambda job=job, found=found: found.append(job()))
            spent[name].append(found[0] if isinstance(found[0], Seconds) else seconds)
    return {name: Seconds(*map(statistics.median, zip(*found[1:], strict=True))) for name, found in spent.items()}


class Apart:
    """A side in a process of its own, where neither's thread pool, allocator or settings meet the other's.

    `make(*args)` runs there once and returns the job; a call `apart(*inputs)` runs `job(*inputs)` there, twice, and
    returns what the second time took: a virtual machine takes the free memory of a process that waits, and the first
    run would pay for getting it back, which no training that goes on pays.
    """

    def __init__(self, make: Callable[..., Callable[..., Any]], *args: Any):
        spawn = multiprocessing.get_context("spawn")
        self._connection, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs, make, args), daemon=True)
        self._process.start()
        theirs.close()

    def __call__(self, *inputs: Any) -> Seconds:
        self._connection.send(inputs)
        return self._connection.recv()


def _serve(connection: Connection, make: Callable[..., Callable[..., Any]], args: tuple[Any, ...]) -> None:
    job = make(*args)
    with contextlib.suppress(EOFError):
        while True:
            inputs = connection.recv()
            job(*inputs)
            connection.send(timed(job, *inputs))


def peak_bytes() -> int:
    """The most memory that this process has held so far (Linux; `getrusage` would count its parent's too)."""
    status = pathlib.Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same keys as aligned text, None as a dash."""
    cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)


def write(path: str, rows: Sequence[Mapping[str, Any]], **about: Any) -> None:
    """The same rows as JSON, with what a reader must know about the run."""
    found = {"machine": platform.platform(), **about, "rows": list(rows)}
    pathlib.Path(path).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,.2f}" if isinstance(value, float) else str(value)
