import numpy as np
import pytest

from mmjax.data.sources import _lines
from mmjax.data.sources._lines import LineIndex


@pytest.fixture(params=[1, 2, 3, 7, 2**20])
def small_blocks(request, monkeypatch):
    """Blocks so small that lines, quotes and line ends straddle them."""
    monkeypatch.setattr(_lines, "_BLOCK", request.param)


def index(tmp_path, content, **settings):
    (tmp_path / "file").write_bytes(content)
    return LineIndex(tmp_path / "file", **settings)


def everything(lines):
    return [(int(lines.numbers[i]), lines[i]) for i in range(len(lines))]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b"\n\r\n\n", []),
        (b"one", [(1, b"one")]),
        (b"one\n", [(1, b"one")]),
        (b"one\r\ntwo\r\n", [(1, b"one"), (2, b"two")]),
        (b"\n\none\n\r\n\ntwo", [(3, b"one"), (6, b"two")]),
        (b"a\nb\n", [(1, b"a"), (2, b"b")]),
        (b'"\n"', [(1, b'"'), (2, b'"')]),
        ("ä\nö".encode(), [(1, "ä".encode()), (2, "ö".encode())]),
    ],
)
def test_lines(tmp_path, content, expected):
    assert everything(index(tmp_path, content)) == expected


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'"a\nb",c\nd\n', [(1, b'"a\nb",c'), (3, b"d")]),
        (b'x\n"a\n\n\nb"\n\ny', [(1, b"x"), (2, b'"a\n\n\nb"'), (7, b"y")]),
        (b'"say ""a\nb"""\nc', [(1, b'"say ""a\nb"""'), (3, b"c")]),
        (b'""\n""', [(1, b'""'), (2, b'""')]),
    ],
)
def test_a_quoted_newline_does_not_end_a_line(tmp_path, content, expected):
    assert everything(index(tmp_path, content, quoted=True)) == expected


def test_random_lines_against_split(tmp_path, monkeypatch):
    monkeypatch.setattr(_lines, "_BLOCK", 5)
    generator = np.random.default_rng(0)
    for _ in range(50):
        content = bytes(generator.choice(list(b"ab\r\n\n"), size=generator.integers(0, 40)).tolist())
        naive = [(n, line.rstrip(b"\r")) for n, line in enumerate(content.split(b"\n"), 1)]
        expected = [(n, line) for n, line in naive if line]
        # A line of nothing but two or more carriage returns is no blank line of any system.
        found = [(n, line) for n, line in everything(index(tmp_path, content)) if line]
        assert found == expected


@pytest.mark.parametrize(("content", "line"), [(b'a\nb"\nc\n', 2), (b'"', 1), (b'"a"\n\n"b\n', 3)])
def test_an_open_quote_is_named(tmp_path, content, line):
    with pytest.raises(ValueError, match=f"file line {line}: a double quote never closes"):
        index(tmp_path, content, quoted=True)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent not found \(looked from "):
        LineIndex(tmp_path / "absent")
