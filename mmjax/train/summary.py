"""What a run prints before its first step, so that nothing about it is a guess."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from mmjax import paths
from mmjax.config import to_json
from mmjax.data import is_synthetic


def data_line(source: Any) -> str:
    """What is trained on, and a warning where a program made it."""
    line = f"data: {len(source):,} examples of {type(source).__name__}"
    return f"{line}; SYNTHETIC, made by a program" if is_synthetic(source) else line


def batch_table(batch: Mapping[str, Any]) -> Table:
    """Name, shape, dtype and range of every array of a batch."""
    table = Table("field", "shape", "dtype", "min", "max", title="batch", title_justify="left")
    for name, array in batch.items():
        array = np.asarray(array)
        low, high = (f"{array.min():.4g}", f"{array.max():.4g}") if array.size else ("", "")
        table.add_row(name, str(array.shape), str(array.dtype), low, high)
    return table


def parameter_table(trainable: Mapping[str, Any], frozen: Mapping[str, Any]) -> Table:
    """Number of parameters by tower (first name of the path), trainable and frozen."""
    counts: dict[str, list[int]] = {}
    for column, tree in enumerate((trainable, frozen)):
        for path, leaf in paths.flatten(tree).items():
            counts.setdefault(path.split("/")[0], [0, 0])[column] += math.prod(leaf.shape)
    table = Table("part", "trainable", "frozen", title="parameters", title_justify="left")
    for name, (moving, still) in counts.items():
        table.add_row(name, f"{moving:,}", f"{still:,}")
    table.add_row("all", f"{sum(c[0] for c in counts.values()):,}", f"{sum(c[1] for c in counts.values()):,}")
    return table


def arithmetic(*, steps: int, batch_size: int, accumulate: int, exact: bool, examples: int) -> str:
    """Steps, samples and epochs of a run in one line.

    >>> arithmetic(steps=100, batch_size=32, accumulate=2, exact=False, examples=1600)
    '100 steps x 32 = 3,200 samples = 2 epochs of 1,600 examples; 2 micro-batches of 16 a step, contrasted apart'
    >>> arithmetic(steps=100, batch_size=32, accumulate=2, exact=True, examples=1600).split("; ")[1]
    '2 micro-batches of 16 a step, contrasted over the whole batch'
    """
    samples = steps * batch_size
    line = f"{steps:,} steps x {batch_size:,} = {samples:,} samples"
    line += f" = {samples / examples:.3g} epochs of {examples:,} examples"
    if accumulate > 1:
        size = math.ceil(batch_size / accumulate)
        most = "at most " if batch_size % size else ""
        line += f"; {math.ceil(batch_size / size)} micro-batches of {most}{size} a step, "
        line += "contrasted over the whole batch" if exact else "contrasted apart"
    return line


def memory(compiled: jax.stages.Compiled) -> str:
    """What one step of the compiled program needs on a device, as the compiler estimates it."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return "memory: the compiler of this platform gives no estimate"
    total = analysis.argument_size_in_bytes + analysis.temp_size_in_bytes + analysis.output_size_in_bytes
    total -= analysis.alias_size_in_bytes
    mebibytes = lambda count: f"{count / 2**20:,.1f} MiB"  # noqa: E731
    return (
        f"memory a device: {mebibytes(total)} (arguments {mebibytes(analysis.argument_size_in_bytes)}, "
        f"temporary {mebibytes(analysis.temp_size_in_bytes)})"
    )


def show(config: Mapping[str, Any], *parts: RenderableType) -> None:
    """Prints the resolved config, then `parts`."""
    console = Console(highlight=False, soft_wrap=True, width=None if Console().is_terminal else 120)
    console.print(
        Group(Text("config " + to_json(config).strip()), *(Text(p) if isinstance(p, str) else p for p in parts))
    )
