"""Matplotlib figures as inline SVG: the page's colours, light or dark, and the same bytes for the same figure."""

import io
import re
from collections.abc import Callable

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Figures are drawn in these colours, which stand for variables of the page's style sheet: there the reader's
# light or dark theme decides.
MUTED, RULE = "#000002", "#000003"
SERIES = ("#000011", "#000012", "#000013", "#000014")
_VARIABLES = {MUTED: "muted", RULE: "rule"} | {colour: f"series-{i}" for i, colour in enumerate(SERIES, start=1)}

_STYLE = {
    "font.size": 11.0,
    "svg.fonttype": "none",
    "axes.edgecolor": RULE,
    "axes.axisbelow": True,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.4,
    "lines.solid_joinstyle": "round",
    "xtick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "ytick.major.size": 0.0,
}


def draw(
    paint: Callable[[Axes], None], *, label: str, size: tuple[int, int], margins: tuple[int, int, int, int]
) -> Markup:
    """One set of axes as an `<svg>` element.

    Args:
      paint: draws on the axes, in the colours of this module.
      label: what the figure shows, for readers who do not see it.
      size: width and height in pixels; the page may scale the figure.
      margins: left, top, right, bottom of the axes, in pixels.

    Returns:
      The element, without identifiers that could clash with another figure's on the page.

    >>> print(draw(lambda axes: None, label="<empty>", size=(40, 20), margins=(0, 0, 0, 0))[:74])
    <svg role="img" aria-label="&lt;empty&gt;" viewBox="0 0 40 20"><g><g><path
    """
    (width, height), (left, top, right, bottom) = size, margins
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the user's own style is
        matplotlib.rcParams.update(_STYLE | {"svg.hashsalt": label})
        figure = Figure(figsize=(width / 72, height / 72), facecolor="none")
        box = (left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height)
        paint(figure.add_axes(box, facecolor="none"))
        file = io.StringIO()
        FigureCanvasSVG(figure).print_svg(file, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return _inline(file.getvalue(), label=label, width=width, height=height)


def _inline(document: str, *, label: str, width: int, height: int) -> Markup:
    body = document[document.index("<svg") : document.rindex("</svg>")]
    body = body[body.index(">") + 1 :]
    body = re.sub(
        r"<metadata>.*?</metadata>|<!--.*?-->|<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL
    )
    body = re.sub(r"font-family: [^;\"]*; | transform=\"rotate\(-0 [^)]*\)\"", "", body)
    # Groups are named alike in every figure; what is referred to is named by a hash of its content and the label.
    body = re.sub(r'(<g) id="[^"]*"', r"\1", body)
    body = re.sub(r">\s+<", "><", body.strip())
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var(--{variable})")
    head = f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {width} {height}">'
    return Markup(f"{head}{body}</svg>")
