import io
import sys

import numpy as np
import pytest
from PIL import Image

from mmjax.data.prepare import prepare
from mmjax.data.prepare._splits import held_out
from mmjax.data.sources import build_source
from mmjax.data.storage import read_info

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="8" height="4"><rect width="8" height="4" fill="#00f"/></svg>'


@pytest.fixture
def package(tmp_path):
    """An unpacked tuxpaint-stamps-default with six stamps, of which one has no picture."""
    root = tmp_path / "package" / "usr/share/tuxpaint/stamps"
    captions = {
        "animals/birds/crow": "A crow.\nfr.utf8=Un corbeau.\nca@valencia.utf8=Un corb.\nsv.utf8=\n",
        "animals/ram": "A ram.\nde.utf8=Ein Widder.\n",
        "symbols/letters/a": "The letter A.\n",
        "symbols/letters/a_outline": "The letter A.\n",
        "town/rose": "A rose.\n",
        "town/gift": "A gift.\n",
    }
    for name, text in captions.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / f"{name}.txt").write_text(text, "utf-8")
        if name not in ("town/gift", "town/rose"):
            Image.new("RGBA", (6, 3), (0, 200, 0, 255)).save(root / f"{name}.png")
    (root / "town" / "rose.svg").write_text(SVG)
    sounds = ["crow_desc.ogg", "crow_desc_fr.ogg", "crow_desc_pt_BR.wav", "crow_desc_pt_BR.ogg", "crow_desc_da.ogg.ogg"]
    for sound in [*sounds, "crow.ogg", "Crow_desc_el.ogg"]:
        (root / "animals" / "birds" / sound).write_bytes(sound.encode())
    doc = tmp_path / "package" / "usr/share/doc/tuxpaint-stamps-default"
    doc.mkdir(parents=True)
    (doc / "copyright").write_text("GPL-2")
    return tmp_path / "package"


def records(out):
    found = {}
    for split in ("train", "test"):
        source = build_source("arrayrecord", path=out, split=split)
        found[split] = {source[i]["id"]: source[i] for i in range(len(source))}
    return found


def test_the_captions_of_this_test():
    assert [held_out(caption, share=0.1) for caption in ("A crow.", "A ram.", "The letter A.", "A rose.")] == [
        False,
        True,
        False,
        True,
    ]


def test_splits_by_caption(package, tmp_path):
    pytest.importorskip("resvg_py")
    splits = prepare("stamps", source=package, out=tmp_path / "out")
    assert {name: split.count for name, split in splits.items()} == {"train": 3, "test": 2}
    found = records(tmp_path / "out")
    assert set(found["train"]) == {"animals/birds/crow", "symbols/letters/a", "symbols/letters/a_outline"}
    assert set(found["test"]) == {"animals/ram", "town/rose"}


def test_a_record(package, tmp_path):
    prepare("stamps", source=package, out=tmp_path / "out")
    record = records(tmp_path / "out")["train"]["animals/birds/crow"]
    picture = np.asarray(Image.open(io.BytesIO(record.pop("image"))))
    np.testing.assert_array_equal(picture, np.broadcast_to([0, 200, 0], (3, 6, 3)))
    assert record == {
        "id": "animals/birds/crow",
        "captions": ["A crow."],
        "label": 0,
        "category": "animals",
        "folder": "animals/birds",
        "captions_fr": ["Un corbeau."],
        "captions_ca@valencia": ["Un corb."],
        "audio": b"crow_desc.ogg",
        "audio_fr": b"crow_desc_fr.ogg",
        "audio_da": b"crow_desc_da.ogg.ogg",
        "audio_pt_BR": b"crow_desc_pt_BR.ogg",
    }


def test_the_description(package, tmp_path):
    pytest.importorskip("resvg_py")
    prepare("stamps", source=package, out=tmp_path / "out")
    info, _ = read_info(tmp_path / "out")
    assert info.licence == "GPL-2.0-or-later"
    assert (tmp_path / "out" / "copyright").read_text() == "GPL-2"
    assert info.class_names == ["animals", "symbols", "town"]
    assert info.notes == {
        "captions": 8,
        "languages": ["ca@valencia", "de", "en", "fr"],
        "spoken captions": 4,
        "left out": {"no picture": 1},
    }


def test_a_vector_graphic_is_drawn_at_the_size(package, tmp_path):
    pytest.importorskip("resvg_py")
    prepare("stamps", source=package, out=tmp_path / "out", size=16)
    found = records(tmp_path / "out")
    assert Image.open(io.BytesIO(found["test"]["town/rose"]["image"])).size == (16, 8)
    assert Image.open(io.BytesIO(found["test"]["animals/ram"]["image"])).size == (6, 3)


def test_what_cannot_be_used_is_counted(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    root = package / "usr/share/tuxpaint/stamps"
    (root / "symbols" / "letters" / "a.txt").write_bytes(b"\xff\xfe")
    (root / "symbols" / "letters" / "a_outline.txt").write_text("\nfr.utf8=La lettre A.\n")
    prepare("stamps", source=package, out=tmp_path / "out")
    assert read_info(tmp_path / "out")[0].notes["left out"] == {
        "SVG only, which needs resvg_py: pip install resvg_py": 1,
        "no picture": 1,
        "captions that are not UTF-8": 1,
        "no English caption": 1,
    }


def test_a_broken_picture_is_counted(package, tmp_path):
    (package / "usr/share/tuxpaint/stamps/symbols/letters/a.png").write_bytes(b"no picture")
    prepare("stamps", source=package, out=tmp_path / "out")
    reasons = read_info(tmp_path / "out")[0].notes["left out"]
    assert sum(count for reason, count in reasons.items() if reason.startswith("undecodable picture: ")) == 1


def test_another_folder_is_refused(package, tmp_path):
    with pytest.raises(FileNotFoundError, match="has no usr/share/tuxpaint/stamps"):
        prepare("stamps", source=tmp_path, out=tmp_path / "out")
    (package / "usr/share/doc/tuxpaint-stamps-default/copyright").unlink()
    with pytest.raises(FileNotFoundError, match="has no usr/share/doc/tuxpaint-stamps-default/copyright"):
        prepare("stamps", source=package, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
