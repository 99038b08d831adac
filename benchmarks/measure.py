"""Time and memory of several forms of one job."""

import json
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple


class Seconds(NamedTuple):
    """Medians: of the clock, and of the time that all cores spent, which others on the machine disturb less."""

    wall: float
    cpu: float


def interleaved(jobs: Mapping[str, Callable[[], Any]], *, repeats: int) -> dict[str, Seconds]:
    """Runs all jobs in turn, `repeats` times after a first that does not count; a job returns when its work is done."""
    spent: dict[str, list[Seconds]] = {name: [] for name in jobs}
    for _ in range(repeats + 1):
        for name, job in jobs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            job()
            spent[name].append(Seconds(time.perf_counter() - wall, time.process_time() - cpu))
    return {name: Seconds(*map(statistics.median, zip(*found[1:], strict=True))) for name, found in spent.items()}


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
