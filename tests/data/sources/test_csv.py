import csv
import io

import numpy as np
import pytest

from mmjax.data.records import CorruptRecordError
from mmjax.data.sources import build_source


@pytest.fixture
def source(pictures):
    def build(text, **settings):
        path = pictures / "train.csv"
        path.write_bytes(text.encode())
        return build_source("csv", path=path, **settings)

    return build


def test_rows_are_records(source, pictures):
    rows = source('image,caption,label,note\na.png,"eins, ""zwei""\ndrei",2,x\n\nsub/b.png,vier,0,\n')
    assert len(rows) == 2
    assert rows[0] == {
        "id": "train:2",
        "image": str(pictures / "a.png"),
        "captions": ['eins, "zwei"\ndrei'],
        "label": 2,
        "note": "x",
    }
    assert rows[1]["id"] == "train:5"
    assert rows[1]["note"] == ""


@pytest.mark.parametrize(
    ("cell", "captions"),
    [
        ('"[""a"", ""b""]"', ["a", "b"]),
        ('" [ ""a"" ]"', ["a"]),
        ("[sic] a dog", ["[sic] a dog"]),
        ("a dog", ["a dog"]),
    ],
)
def test_a_cell_holds_one_caption_or_a_json_list(source, cell, captions):
    assert source(f"captions\n{cell}\n")[0]["captions"] == captions


def test_settings(source, pictures):
    rows = source(
        "file\ttext\tkind\tkey\na.png\ta, dog\tdog\tk\n",
        delimiter="\t",
        image_column="file",
        caption_column="text",
        label_column="kind",
        id_column="key",
        class_names=["cat", "dog"],
    )
    assert rows[0] == {"id": "k", "image": str(pictures / "a.png"), "captions": ["a, dog"], "label": 1}


def test_windows_files(source):
    rows = source("\ufeffcaption,note\r\neins,x\r\n\r\nzwei,y")
    assert [row["captions"] for row in rows] == [["eins"], ["zwei"]]


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("caption,note\na,x\nb\n", 3, "1 cells, the header has 2"),
        ("caption,note\na,x\nb,y,z\n", 3, "3 cells, the header has 2"),
        ("caption,note\na,x\n,y\n", 3, "caption 0 is str ''"),
        ('caption,note\na,x\n"b"c,y\n', 3, "not CSV: ',' expected after '\"'"),
        ('captions,note\na,x\n"[""b""",y\n', 3, "captions start like a JSON list, but are none"),
        ("captions,note\na,x\n[],y\n", 3, "captions is an empty list"),
        ("caption,label\na,1\nb,cat\n", 3, "label is 'cat'; expected an integer"),
        ("caption,label\na,1\nb,-1\n", 3, "label is '-1'; expected an integer"),
        ("caption,image\na,a.png\nb,c.png\n", 3, "c.png not found"),
    ],
)
def test_a_bad_row_is_named(source, text, line, reason):
    rows = source(text)
    assert rows[0]["captions"] == ["a"]
    with pytest.raises(CorruptRecordError) as caught:
        rows[1]
    assert caught.value.where.endswith(f"train.csv line {line}")
    assert reason in caught.value.reason


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("", {}, "train.csv is empty, expected a header line"),
        ("a,b,a\n1,2,3\n", {}, "the header names a column twice: a, b, a"),
        ("caption\nx\n", {"caption_column": "captoin"}, "has no column 'captoin'; did you mean 'caption'?"),
        ('caption\n"x\ny\n', {}, "line 2: a double quote never closes"),
    ],
)
def test_a_bad_file_stops_at_once(source, text, settings, message):
    with pytest.raises(ValueError) as caught:
        source(text, **settings)
    assert message in str(caught.value)


def test_random_tables_against_the_csv_module(source):
    generator = np.random.default_rng(1)
    for _ in range(30):
        cells = ["".join(generator.choice(list('ab",\n é'), size=6)) for _ in range(8)]
        table = [["caption", "note"], *([f"x{a}", b] for a, b in zip(cells[::2], cells[1::2], strict=True))]
        file = io.StringIO(newline="")
        csv.writer(file, lineterminator="\n").writerows(table)
        rows = source(file.getvalue())
        assert [[row["captions"][0], row["note"]] for row in rows] == table[1:]
