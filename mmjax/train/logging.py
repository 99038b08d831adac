"""Where a run's numbers go: `metrics.jsonl` first, TensorBoard second, and a progress line for whoever watches.

`metrics.jsonl` holds nothing that depends on the clock, so that a resumed run writes what an uninterrupted one would
have; speeds are in `timing.jsonl`.
"""

import json
import math
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class MetricWriter:
    """Appends scalars of a step to `<workdir>/metrics.jsonl` and to TensorBoard.

    Args:
      workdir: of the run.
      resumed_step: the step that the run goes on from; lines of later steps are taken back.
      tensorboard: whether to write event files too.
    """

    def __init__(self, workdir: pathlib.Path, *, resumed_step: int = 0, tensorboard: bool = True):
        for name in ("metrics.jsonl", "timing.jsonl"):
            _take_back(workdir / name, resumed_step)
        self._metrics = open(workdir / "metrics.jsonl", "a", encoding="utf-8", buffering=1)  # noqa: SIM115
        self._timing = open(workdir / "timing.jsonl", "a", encoding="utf-8", buffering=1)  # noqa: SIM115
        self._board = None
        if tensorboard:
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=resumed_step + 1, write_to_disk=True)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Appends `values`, scalars by name, of step `step`."""
        _append(self._metrics, self._board, step, values)

    def write_timing(self, step: int, values: Mapping[str, Any]) -> None:
        """Appends what depends on the clock."""
        _append(self._timing, self._board, step, {f"timing/{name}": value for name, value in values.items()})

    def close(self) -> None:
        """Flushes and closes the files."""
        self._metrics.close()
        self._timing.close()
        if self._board is not None:
            self._board.close()


class ProgressLine:
    """A progress bar on a terminal, plain lines elsewhere.

    Args:
      total: steps of the run.
      done: steps made before.
    """

    def __init__(self, total: int, *, done: int = 0):
        self._total = total
        self._bar = None
        if sys.stdout.isatty():
            columns = (
                MofNCompleteColumn(),
                BarColumn(),
                TextColumn("{task.fields[text]}"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns)
            self._task = self._bar.add_task("", total=total, completed=done, text="")
            self._bar.start()

    def update(self, step: int, values: Mapping[str, float], *, per_second: float) -> None:
        """Shows the loss, the scale, samples a second and the time left."""
        shown = [f"loss {values['loss']:.4f}"]
        shown += [f"scale {values['scale']:.2f}"] if "scale" in values else []
        text = "  ".join([*shown, f"{per_second:,.0f} samples/s"])
        if self._bar is not None:
            self._bar.update(self._task, completed=step, text=text)
        else:
            print(f"step {step}/{self._total}  {text}", flush=True)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.stop()


def _append(file: Any, board: Any, step: int, values: Mapping[str, Any]) -> None:
    numbers = {name: float(value) for name, value in values.items()}
    line = {name: value if math.isfinite(value) else str(value) for name, value in numbers.items()}
    file.write(json.dumps({"step": step, **line}) + "\n")
    if board is not None:
        for name, value in numbers.items():
            board.add_scalar(name.replace("@", "_at_"), value, step)


def _take_back(path: pathlib.Path, step: int) -> None:
    """Drops the lines of steps after `step`, and a last line that a kill left unfinished."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            break
        if entry["step"] <= step:
            kept.append(line)
    rewritten = path.with_suffix(".tmp")
    rewritten.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    rewritten.replace(path)
