"""How a run's numbers moved: small panels over the steps, one a quantity."""

import collections
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from mmjax.evaluate.report.figures import SERIES, draw
from mmjax.evaluate.report.tables import is_share

_SIZE, _MARGINS = (320, 190), (44, 10, 66, 28)
_TITLES = {"loss": "Loss", "scale": "Scale", "learning_rate": "Learning rate", "grad_norm": "Gradient norm"}


class Curve(NamedTuple):
    """Values of one quantity: `steps` and `values`, `[N]`; a value that is not finite leaves a gap."""

    steps: np.ndarray
    values: np.ndarray


class Panel(NamedTuple):
    """A figure with its title."""

    title: str
    svg: Markup


def training_panels(metrics: Iterable[Mapping[str, Any]]) -> list[Panel]:
    """Loss, scale, learning rate and gradient norm, then whatever else was logged while training.

    Args:
      metrics: lines of a `metrics.jsonl`; those of training have a `loss`.

    Returns:
      A panel a quantity. The terms of a loss that has several are in its panel.

    >>> [panel.title for panel in training_panels([{"step": 1, "loss": 2.0, "bias": -10.0}])]
    ['Loss', 'bias']
    """
    found = _collect(line for line in metrics if "loss" in line)
    terms = {name: curve for name, curve in found.items() if name.startswith("loss/")}
    others = [name for name in found if name not in _TITLES and name not in terms and name != "log_scale"]
    if "scale" not in found and "log_scale" in found:
        others.insert(0, "log_scale")
    panels = []
    for name in [*(name for name in _TITLES if name in found), *others]:
        lines = {"": found[name]}
        if name == "loss" and len(terms) > 1:
            lines = {"sum": found[name], **{term.removeprefix("loss/"): curve for term, curve in terms.items()}}
        title = _TITLES.get(name, name.replace("_", " "))
        panels.append(Panel(title, _plot(lines, label=f"{title} over training steps")))
    return panels


def evaluation_panels(metrics: Iterable[Mapping[str, Any]]) -> list[Panel]:
    """Recalls and accuracies, a panel a direction, and the modality gap, where there was more than one evaluation.

    Args:
      metrics: lines of a `metrics.jsonl`; those of evaluations have no `loss`.

    >>> lines = [{"step": s, "retrieval/text_to_image/R@1": 0.1 * s} for s in (1, 2)]
    >>> [panel.title for panel in evaluation_panels(lines)]
    ['retrieval, text to image']
    """
    groups: dict[str, dict[str, Curve]] = {}
    for name, curve in _collect(line for line in metrics if "loss" not in line).items():
        *path, last = name.split("/")
        if len(curve.steps) < 2 or not (is_share(last) or last == "modality_gap"):
            continue
        measure = re.sub(r"(R@|top|@)\d+$", "", last)
        title = ", ".join(filter(None, (*path, measure))).replace("_", " ")
        groups.setdefault(title, {})["" if last == "modality_gap" else last.removeprefix("recall_fraction")] = curve
    return [
        Panel(title, _plot(lines, label=f"{title}, over training steps", share="" not in lines, points=True))
        for title, lines in groups.items()
    ]


def _collect(lines: Iterable[Mapping[str, Any]]) -> dict[str, Curve]:
    columns: dict[str, list[tuple[int, float]]] = collections.defaultdict(list)
    for line in lines:
        for name, value in line.items():
            if name != "step":
                columns[name].append((line["step"], float(value)))  # "nan" and "inf" are written as text
    return {name: Curve(*np.asarray(column, float).T) for name, column in columns.items()}


def _plot(lines: Mapping[str, Curve], *, label: str, share: bool = False, points: bool = False) -> Markup:
    def paint(axes: Axes) -> None:
        ends = []
        for number, (name, curve) in enumerate(lines.items()):
            colour = SERIES[number % len(SERIES)]
            values = np.where(np.isfinite(curve.values), curve.values, np.nan)
            marker = "o" if points or np.isfinite(values).sum() < 2 else None
            axes.plot(curve.steps, values, color=colour, marker=marker, markersize=2.5, clip_on=False)
            finite = values[np.isfinite(values)]
            if len(finite):
                ends.append((float(finite[-1]), f"{name} {_short(float(finite[-1]))}".strip(), colour))
        axes.grid(axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
        axes.yaxis.set_major_locator(FixedLocator((0, 0.25, 0.5, 0.75, 1)) if share else MaxNLocator(4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
        axes.margins(x=0.0)
        axes.set_xlim(left=0)
        if share:
            axes.set_ylim(0.0, 1.0)
        _label_ends(axes, ends)

    return draw(paint, label=label, size=_SIZE, margins=_MARGINS)


def _label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Writes each line's name and last value at its end, pushed apart where lines end together."""
    low, high = axes.get_ylim()
    line_height = 13 / (_SIZE[1] - _MARGINS[1] - _MARGINS[3])
    below = -np.inf
    placed = []
    for value, text, colour in sorted(ends, key=lambda end: end[0]):
        below = max((value - low) / (high - low), below + line_height)
        placed.append((below, text, colour))
    overflow = max(0.0, max((height for height, *_ in placed), default=0.0) - 1.0)
    for height, text, colour in placed:
        at = (1.0, height - overflow)
        style = {"va": "center", "color": colour, "parse_math": False}
        axes.annotate(text, at, (5, 0), xycoords="axes fraction", textcoords="offset points", **style)


def _short(value: float) -> str:
    """A number in few signs: three digits that count.

    >>> [_short(value) for value in (0.8125, 0.002, 14.2857, 12345.6, 1e-05, 0.0)]
    ['0.812', '0.002', '14.3', '12,346', '1e-05', '0']
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
