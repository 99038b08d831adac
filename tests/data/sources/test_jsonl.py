import json
import os

import pytest

from mmjax.data.records import CorruptRecordError
from mmjax.data.sources import build_source


@pytest.fixture
def source(pictures):
    def build(*rows, **settings):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path = pictures / "train.jsonl"
        path.write_text("\n".join(lines), "utf-8")
        return build_source("jsonl", path=path, **settings)

    return build


def test_without_pictures_none_is_looked_for(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"image": "missing.png", "caption": "x", "label": 1}')
    source = build_source("jsonl", path=tmp_path / "x.jsonl")
    assert source.without_images()[0] == {"id": "x:1", "captions": ["x"], "label": 1}
    with pytest.raises(CorruptRecordError, match=r"missing\.png not found"):
        source[0]


def test_rows_are_records(source, pictures):
    rows = source(
        {"image": "a.png", "caption": "eins", "label": 2, "note": {"any": [1]}},
        "",
        {"image": "sub/b.png", "captions": ["zwei", "ö"], "id": 17},
    )
    assert len(rows) == 2
    assert rows[0] == {
        "id": "train:1",
        "image": str(pictures / "a.png"),
        "captions": ["eins"],
        "label": 2,
        "note": {"any": [1]},
    }
    assert rows[1] == {"id": "17", "image": str(pictures / "sub" / "b.png"), "captions": ["zwei", "ö"]}


def test_columns_by_name(source, pictures):
    row = {"file": "a.png", "text": "eins", "kind": "dog", "key": "k", "caption": "left alone"}
    named = {"image_column": "file", "caption_column": "text", "label_column": "kind", "id_column": "key"}
    rows = source(row, class_names=["cat", "dog"], **named)
    expected = {"id": "k", "image": str(pictures / "a.png"), "captions": ["eins"], "label": 1, "caption": "left alone"}
    assert rows[0] == expected
    assert rows.class_names == ("cat", "dog")


def test_null_is_absent(source):
    assert source({"captions": ["x"], "image": None, "label": None, "id": None})[0] == {
        "captions": ["x"],
        "id": "train:1",
    }


@pytest.mark.parametrize(
    ("row", "settings", "reason"),
    [
        ("{bad", {}, "not JSON: Expecting property name"),
        ("[1]", {}, "expected a JSON object, found list"),
        ({"captions": 3}, {}, "captions is int 3"),
        ({"captions": []}, {}, "captions is an empty list"),
        ({"caption": ""}, {}, "caption 0 is str ''"),
        ({"label": 3}, {}, "neither image nor captions among its fields (id, label)"),
        ({"image": 3}, {}, "image is int 3"),
        ({"image": "c.png"}, {}, "c.png not found"),
        ({"image": "sub"}, {}, "sub not found"),
        (
            {"caption": "x", "label": "fox"},
            {},
            "label is 'fox'; expected an integer; for names of classes set class_names",
        ),
        ({"caption": "x", "label": "dgo"}, {"class_names": ["cat", "dog"]}, "label is 'dgo'; did you mean 'dog'?"),
        ({"caption": "x"}, {"caption_column": "captoin"}, "no column 'captoin'; did you mean 'caption'?"),
    ],
)
def test_a_bad_line_is_named(source, row, settings, reason):
    rows = source({"caption": "fine", "captoin": "fine"}, "", row, **settings)
    assert rows[0]["captions"] == ["fine"]
    with pytest.raises(CorruptRecordError) as caught:
        rows[1]
    assert caught.value.where.endswith("train.jsonl line 3")
    assert reason in caught.value.reason


def test_a_line_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b'{"caption": "\xff"}\n{"caption": "fine"}')
    rows = build_source("jsonl", path=tmp_path / "x.jsonl")
    with pytest.raises(CorruptRecordError, match="line 1: not JSON: 'utf-8' codec"):
        rows[0]
    assert rows[1]["captions"] == ["fine"]


def test_a_byte_order_mark_is_no_content(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b'\xef\xbb\xbf{"caption": "fine"}\r\n')
    assert build_source("jsonl", path=tmp_path / "x.jsonl")[0]["captions"] == ["fine"]


@pytest.mark.parametrize("name", ["../a.png", "x/../../a.png", "/etc/hostname"])
def test_a_picture_outside_of_the_root_is_refused(source, pictures, name):
    root = pictures / "sub"
    with pytest.raises(CorruptRecordError, match=f"lies outside of {root}; set root to a folder that holds it"):
        source({"image": name}, root=root)[0]


def test_a_root_admits_what_it_holds(source, pictures):
    absolute = str(pictures / "a.png")
    assert source({"image": absolute})[0]["image"] == absolute
    assert source({"image": absolute}, root="/")[0]["image"] == absolute
    assert source({"image": "sub/../a.png"})[0]["image"] == absolute
    assert source({"image": "b.png"}, root=pictures / "sub")[0]["image"] == str(pictures / "sub" / "b.png")


def test_a_folder_may_be_a_link(source, pictures):
    os.symlink(pictures / "sub", pictures / "linked")
    assert source({"image": "linked/b.png"})[0]["image"] == str(pictures / "linked" / "b.png")


def test_pictures_are_looked_for_when_a_record_is_read(source, pictures):
    rows = source({"image": "late.png"})
    with pytest.raises(CorruptRecordError, match=r"late\.png not found"):
        rows[0]
    (pictures / "late.png").write_bytes(b"x")
    assert rows[0]["image"] == str(pictures / "late.png")
