"""What a run was, in a few lines: taken from its config and its parameters, never from the clock."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.evaluate.report.held_out import in_words
from mmjax.evaluate.report.run_files import read_lines


def run_facts(
    workdir: pathlib.Path, config: Mapping[str, Any], *, step: int | None, date: str | None
) -> list[tuple[str, str]]:
    """Names and values for the head of the page; what the config does not say is left out.

    Args:
      workdir: of the run, for `timing.jsonl`.
      config: nested values; may be empty.
      step: of the parameters.
      date: to print.

    >>> run_facts(pathlib.Path(), {"method": {"name": "clip", "loss": "softmax"}, "batch_size": 8}, step=10, date=None)
    [('Method', 'clip (loss softmax)'), ('Step', '10'), ('Batch', '8; 80 examples seen')]
    """
    facts = {
        "Method": in_words(config["method"]) if "method" in config else None,
        "Model": config.get("model", {}).get("preset"),
        "Trained on": _training_data(config),
        "Optimizer": _optimizer(config.get("optimizer", {})),
        "Step": None if step is None else f"{step:,}",
        "Batch": _batch(config.get("batch_size"), step),
        "Seed": config.get("seed"),
        "Speed": _speed(workdir / "timing.jsonl"),
        "Date": date,
    }
    return [(name, str(value)) for name, value in facts.items() if value is not None]


def _training_data(config: Mapping[str, Any]) -> str | None:
    train = config.get("data", {}).get("train")
    return in_words(train) if train else None


def _optimizer(optimizer: Mapping[str, Any]) -> str | None:
    if "name" not in optimizer:
        return None
    rate = optimizer.get("learning_rate")
    return optimizer["name"] if rate is None else f"{optimizer['name']}, learning rate {rate:g}"


def _batch(batch_size: int | None, step: int | None) -> str | None:
    if batch_size is None or step is None:
        return None if batch_size is None else f"{batch_size:,}"
    return f"{batch_size:,}; {batch_size * step:,} examples seen"


def _speed(path: pathlib.Path) -> str | None:
    """Median of the logged speeds: the first ones hold compilation."""
    name = "timing/samples_per_second"
    speeds = [line[name] for line in read_lines(path) if name in line]
    return f"{np.median(speeds):,.0f} examples a second" if speeds else None
