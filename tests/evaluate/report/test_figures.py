import re

import matplotlib

from mmjax.evaluate.report.figures import MUTED, SERIES, draw


def line(axes):
    axes.plot([0, 1], [0, 1], color=SERIES[0])
    axes.annotate("end", (1, 1), color=MUTED)


def drawn(label="a line"):
    return draw(line, label=label, size=(80, 40), margins=(4, 4, 4, 4))


def test_colours_are_variables_and_the_canvas_is_clear():
    svg = drawn()
    assert "stroke: var(--series-1)" in svg
    assert "fill: var(--muted)" in svg
    assert "#ffffff" not in svg


def test_the_users_own_style_changes_nothing():
    plain = drawn()
    with matplotlib.rc_context({"lines.linewidth": 9.0, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert drawn() == plain
        assert matplotlib.rcParams["lines.linewidth"] == 9.0


def test_figures_of_one_content_and_two_labels_share_no_identifier():
    names = [set(re.findall(r'id="([^"]*)"', drawn(label))) for label in ("one", "two")]
    assert names[0]
    assert not names[0] & names[1]
