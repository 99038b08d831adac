import re

import numpy as np
import pytest

from mmjax.evaluate.report import evaluation_panels, training_panels


def test_terms_of_a_loss_share_its_panel():
    line = {"step": 1, "loss": 3.0, "loss/contrast": 1.0, "loss/distil": 2.0, "log_scale": 1.0}
    panels = training_panels([line, line | {"step": 2}])
    assert [panel.title for panel in panels] == ["Loss", "log scale"]
    for text in ("sum 3", "contrast 1", "distil 2"):
        assert f">{text}</text>" in panels[0].svg


def test_counts_and_single_evaluations_have_no_curve():
    once = {"step": 2, "retrieval/text_to_image/R@1": 0.5}
    assert evaluation_panels([once]) == []
    twice = [{"step": step, "a/top1": 0.5, "a/images": 10, "a/modality_gap": 0.1} for step in (1, 2)]
    assert [panel.title for panel in evaluation_panels(twice)] == ["a", "a, modality gap"]


def test_both_definitions_of_recall_have_panels_of_their_own():
    lines = [{"step": s, "r/R@1": 0.5, "r/R@5": 0.6, "r/recall_fraction@5": 0.1} for s in (1, 2)]
    panels = evaluation_panels(lines)
    assert [panel.title for panel in panels] == ["r", "r, recall fraction"]
    assert ">R@5 0.6</text>" in panels[0].svg
    assert ">@5 0.1</text>" in panels[1].svg


@pytest.mark.parametrize("values", [["nan", "inf"], [1.0, "nan"], [0.0, 0.0]])
def test_values_that_are_no_numbers_leave_gaps(values):
    panels = training_panels([{"step": step, "loss": value} for step, value in enumerate(values)])
    assert "nan" not in panels[0].svg


def test_labels_at_the_ends_of_lines_stand_apart():
    lines = [{"step": s, "r/R@1": 0.99, "r/R@5": 1.0, "r/R@10": 1.0} for s in (1, 2)]
    svg = evaluation_panels(lines)[0].svg
    heights = [float(y) for y in re.findall(r'y="([\d.]+)">R@', svg)]
    assert len(heights) == 3
    assert min(np.diff(sorted(heights))) > 10


def test_names_of_terms_are_text():
    line = {"step": 1, "loss": 3.0, "loss/<b>&$x$": 1.0, "loss/other": 2.0}
    assert ">&lt;b&gt;&amp;$x$ 1</text>" in training_panels([line])[0].svg
