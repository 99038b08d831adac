"""A run's numbers as tables: results, facts and parameters."""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from mmjax import paths

MINUS = "\N{MINUS SIGN}"
_SHARE = re.compile(r"(R@|recall_fraction@|top)\d+")


def is_share(name: str) -> bool:
    """Whether a result is a share of the queries or pictures, by the last part of its name.

    >>> is_share("R@10"), is_share("top1"), is_share("median_rank")
    (True, True, False)
    """
    return _SHARE.fullmatch(name) is not None


class Table(NamedTuple):
    """Rows of numbers.

    Attributes:
      columns: their heads.
      rows: the name of each and its cells.
    """

    columns: tuple[str, ...]
    rows: list[tuple[str, tuple[str, ...]]]


def result_tables(results: Mapping[str, Any]) -> list[Table]:
    """Flat results, such as `retrieval/text_to_image/R@1`, as tables; rows with the same columns share one.

    Shares are in per cent; the second definition of recall, `recall_fraction`, has tables of its own. Values without a
    path are no measures (the step, for one) and left to the caller.

    >>> result_tables({"retrieval/text_to_image/R@1": 0.5, "retrieval/text_to_image/gallery": 1000, "step": 3})
    [Table(columns=('R@1', 'gallery'), rows=[('retrieval, text to image', ('50.0', '1,000'))])]
    """
    measures: dict[tuple[str, bool], dict[str, Any]] = {}
    for name, value in results.items():
        path, slash, last = name.rpartition("/")
        if slash:
            measures.setdefault((path, last.startswith("recall_fraction")), {})[last] = value
    tables: dict[tuple[str, ...], Table] = {}
    for (path, _), values in measures.items():
        columns = tuple(_spaced(name.replace("recall_fraction", "fraction ")) for name in values)
        cells = tuple(_cell(name, value) for name, value in values.items())
        tables.setdefault(columns, Table(columns, [])).rows.append((_spaced(path.replace("/", ", ")), cells))
    return list(tables.values())


def parameter_rows(params: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Number of parameters of each tower (first name of the path), and of all.

    >>> import numpy as np
    >>> parameter_rows({"image": {"proj": {"kernel": np.zeros((4, 2))}}, "log_scale": np.zeros(())})
    [('image', 8), ('log_scale', 1), ('all', 9)]
    """
    counts: dict[str, int] = {}
    for path, leaf in paths.flatten(params).items():
        part = path.split("/")[0]
        counts[part] = counts.get(part, 0) + math.prod(leaf.shape)
    return [*counts.items(), ("all", sum(counts.values()))]


def share(part: int, whole: int) -> str:
    """A count with its share of all.

    >>> share(1812, 2000)
    '1,812 of 2,000 (90.6 %)'
    """
    return f"{part:,} of {whole:,} ({100 * part / max(whole, 1):.1f} %)"


def cosine(value: float, digits: int = 2) -> str:
    """A cosine with a proper minus sign, and none before zero.

    >>> cosine(-0.25), cosine(-0.001)
    ('−0.25', '0.00')
    """
    text = f"{value:.{digits}f}"
    return text.replace("-", "" if float(text) == 0 else MINUS)


def _cell(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if is_share(name):
        return f"{100 * value:.1f}"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.3f}"


def _spaced(name: str) -> str:
    return name.replace("_", " ")
