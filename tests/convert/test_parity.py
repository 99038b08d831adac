import json
import math

import numpy as np
import pytest

from mmjax.convert import ConversionError, Report, compare
from mmjax.convert.probe import fixed_images


def test_difference_is_the_largest_absolute_one():
    row = compare("x", np.array([[1.0, -5.0]]), np.array([[1.25, -5.5]]))
    assert row[:4] == ("x", (1, 2), 0.5, 5.5)


@pytest.mark.parametrize(
    ("ours", "theirs", "relative", "agrees"),
    [
        ([100.0], [100.001], False, False),
        ([100.0], [100.001], True, True),  # 1e-4 of 100 is 1e-2.
        ([0.01], [0.0102], True, False),  # Small values do not make the limit smaller ...
        ([0.01], [0.01009], True, True),  # ... nor larger than 1e-4.
        ([math.nan], [1.0], True, False),
        ([1.0], [math.nan], False, False),
        ([1.0, 2.0], [1.0], False, False),
    ],
)
def test_agreement(ours, theirs, relative, agrees):
    assert compare("x", np.array(ours), np.array(theirs), relative=relative).agrees is agrees


def test_report_names_what_differs_and_is_readable_twice(tmp_path):
    rows = (compare("logits", np.zeros(2), np.zeros(2)), compare("pixels", np.zeros((2, 3)), np.ones((2, 3))))
    report = Report("a and b", rows, {"versions": "b 1.0"})
    with pytest.raises(ConversionError, match=r"a and b: no parity:\n  - pixels \[2, 3\]: differs by 1.00e\+00"):
        report.check()
    report.write(tmp_path)
    content = json.loads((tmp_path / "parity.json").read_text())
    assert not content["agrees"]
    assert [row["agrees"] for row in content["rows"]] == [True, False]
    text = (tmp_path / "parity.md").read_text()
    assert "1 of 2 comparisons agree" in text
    assert "| pixels | 2 x 3 | 1.00e+00 | 1.00e+00 | 1e-04 | DIFFERS |" in text
    Report("a and b", rows[:1], {}).check()


def test_fixed_images_are_fixed_and_use_the_whole_range():
    first, second = fixed_images(20), fixed_images(20)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == np.uint8
        assert a.std() > 40
