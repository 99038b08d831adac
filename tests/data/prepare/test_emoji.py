import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from mmjax.data.prepare import prepare
from mmjax.data.prepare._splits import held_out
from mmjax.data.prepare.emoji import VENDORS, captions
from mmjax.data.sources import build_source
from mmjax.data.storage import read_info

# Of these names exactly GRINNING FACE and Gambia Flag are among the tenth that is new.
NAMES = [
    ("GRINNING FACE", "1F600", ["grinning"], "Smileys & Emotion"),
    ("RED HEART", "2764-FE0F", ["heart", "red_heart"], "Smileys & Emotion"),
    ("Gambia Flag", "1F1EC-1F1F2", ["flag-gm"], "Flags"),
    ("Peru Flag", "1F1F5-1F1EA", ["flag-pe"], "Flags"),
    ("CACTUS", "1F335", ["cactus"], "Animals & Nature"),
    ("HOOK", "1FA9D", ["hook"], "Objects"),
    ("LIME", "1F34B-200D-1F7E9", ["lime"], "Food & Drink"),
]


def colour(vendor, position):
    return (10 * VENDORS.index(vendor), 20 * position, 7)


@pytest.fixture
def package(tmp_path):
    """An unpacked emoji-datasource with a sheet of 3 x 3 cells, each sprite of one colour with a clear left half."""
    root = tmp_path / "package"
    entries = []
    for position, (name, code, short_names, category) in enumerate(NAMES):
        entry = {
            "name": name,
            "unified": code,
            "short_names": short_names,
            "category": category,
            "subcategory": "sub",
            "sheet_x": position % 3,
            "sheet_y": position // 3,
        }
        entries.append(entry | {f"has_img_{vendor}": name != "LIME" or vendor != "facebook" for vendor in VENDORS})
    for vendor in VENDORS:
        sheet = Image.new("RGBA", (3 * 34, 3 * 34), (255, 0, 255, 255))
        for position in range(len(NAMES)):
            left, top = position % 3 * 34 + 1, position // 3 * 34 + 1
            sheet.paste((0, 0, 0, 0), (left, top, left + 16, top + 32))
            sheet.paste((*colour(vendor, position), 255), (left + 16, top, left + 32, top + 32))
        (root / "img" / vendor / "sheets").mkdir(parents=True)
        sheet.save(root / "img" / vendor / "sheets" / "32.png")
    (root / "emoji.json").write_text(json.dumps(entries))
    (root / "package.json").write_text('{"version": "16.0.0"}')
    (root / "LICENSE").write_text("MIT, with an é")
    return root


@pytest.fixture
def keywords(tmp_path):
    """An unpacked emojibase-data in English and German."""
    root = tmp_path / "emojibase"
    tables = {
        "en": [("2764", "red heart", ["love"]), ("1F335", "prickly plant", ["desert", "dry"])],
        "de": [("2764-FE0F", "rotes Herz", ["Herz"]), ("1F335", "Kaktus", [])],
    }
    for language, table in tables.items():
        (root / language).mkdir(parents=True)
        entries = [{"hexcode": code, "label": label, "tags": tags} for code, label, tags in table]
        (root / language / "data.json").write_text(json.dumps(entries))
    (root / "LICENSE").write_text("MIT of emojibase")
    return root


def records(out, split):
    source = build_source("arrayrecord", path=out, split=split)
    return {source[i]["id"]: source[i] for i in range(len(source))}


def test_the_names_of_this_test():
    assert [name for name, *_ in NAMES if held_out(name, share=0.1)] == ["GRINNING FACE", "Gambia Flag"]


def test_splits_by_concept_and_vendor(package, tmp_path):
    splits = prepare("emoji", source=package, out=tmp_path / "out")
    assert {name: split.count for name, split in splits.items()} == {"train": 12, "new_style": 4, "new_concept": 8}
    known = {"2764-fe0f", "1f1f5-1f1ea", "1f335", "1fa9d"}
    new = {"1f600", "1f1ec-1f1f2"}
    assert set(records(tmp_path / "out", "train")) == {
        f"{c}/{v}" for c in known for v in ("apple", "google", "twitter")
    }
    assert set(records(tmp_path / "out", "new_style")) == {f"{concept}/facebook" for concept in known}
    assert set(records(tmp_path / "out", "new_concept")) == {f"{c}/{v}" for c in new for v in VENDORS}


def test_a_record(package, tmp_path):
    prepare("emoji", source=package, out=tmp_path / "out")
    record = records(tmp_path / "out", "train")["2764-fe0f/google"]
    picture = np.asarray(Image.open(io.BytesIO(record.pop("image"))))
    assert picture.shape == (32, 32, 3)
    np.testing.assert_array_equal(picture[:, :16], np.full((32, 16, 3), 255))
    np.testing.assert_array_equal(picture[:, 16:], np.broadcast_to(colour("google", 1), (32, 16, 3)))
    assert record == {
        "id": "2764-fe0f/google",
        "vendor": "google",
        "captions": ["red heart", "heart", "red heart, an emoji of smileys and emotion"],
        "label": 3,
        "category": "Smileys & Emotion",
        "subcategory": "sub",
        "concept": "2764-fe0f",
    }


def test_every_sprite_is_its_own_cell(package, tmp_path):
    prepare("emoji", source=package, out=tmp_path / "out")
    everything = {**records(tmp_path / "out", "train"), **records(tmp_path / "out", "new_concept")}
    for position, (_, code, _, _) in enumerate(NAMES[:6]):
        picture = np.asarray(Image.open(io.BytesIO(everything[f"{code.lower()}/twitter"]["image"])))
        np.testing.assert_array_equal(picture[0, 31], colour("twitter", position))
        np.testing.assert_array_equal(picture[31, 16], colour("twitter", position))


def test_the_licence_comes_along(package, tmp_path):
    prepare("emoji", source=package, out=tmp_path / "out")
    info, _ = read_info(tmp_path / "out")
    assert (tmp_path / "out" / "LICENSE").read_text() == "MIT, with an é"
    assert "CC-BY-4.0" in info.licence
    assert info.source == "npm package emoji-datasource 16.0.0"
    assert info.class_names == ["Animals & Nature", "Flags", "Objects", "Smileys & Emotion"]
    assert info.notes["concepts"] == {"all": 7, "drawn by all vendors": 6, "new_concept": 2}
    assert not info.synthetic


def test_keywords_and_languages(package, keywords, tmp_path):
    prepare("emoji", source=package, keywords=keywords, out=tmp_path / "out")
    train = records(tmp_path / "out", "train")
    heart, cactus, hook = (train[f"{code}/apple"] for code in ("2764-fe0f", "1f335", "1fa9d"))
    assert (heart["keywords"], heart["captions_de"], heart["keywords_de"]) == (["love"], ["rotes Herz"], ["Herz"])
    assert heart["captions"] == ["red heart", "heart", "red heart, an emoji of smileys and emotion"]
    assert cactus["captions"] == ["cactus", "prickly plant", "cactus, an emoji of animals and nature"]
    assert "keywords_de" not in cactus
    assert not any(field.startswith(("keywords", "captions_")) for field in hook)
    assert read_info(tmp_path / "out")[0].notes["languages"] == ["de", "en"]
    assert (tmp_path / "out" / "LICENSE-emojibase-data").read_text() == "MIT of emojibase"


def test_the_packed_package_gives_the_same(package, tmp_path):
    with tarfile.open(tmp_path / "emoji.tgz", "w:gz") as tar:
        tar.add(package, arcname="package")
    prepare("emoji", source=tmp_path / "emoji.tgz", out=tmp_path / "packed")
    prepare("emoji", source=package, out=tmp_path / "unpacked")
    for file in (tmp_path / "unpacked").iterdir():
        assert (tmp_path / "packed" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("name", "short_names", "expected"),
    [
        ("MAN TIPPING HAND", ["man-tipping-hand"], ["man tipping hand"]),
        ("THUMBS UP SIGN", ["+1", "thumbsup"], ["thumbs up sign", "+1", "thumbsup"]),
        ("THUMBS DOWN SIGN", ["-1"], ["thumbs down sign", "-1"]),
        ("Peru Flag", ["flag-pe"], ["flag of peru"]),
        ("CHEQUERED FLAG", ["checkered_flag"], ["chequered flag", "checkered flag"]),
    ],
)
def test_captions_are_phrases(name, short_names, expected):
    found = captions({"name": name, "short_names": short_names, "category": "People & Body"})
    assert found == [*expected, f"{expected[0]}, an emoji of people and body"]


def test_another_package_is_refused(package, tmp_path):
    entries = json.loads((package / "emoji.json").read_text())

    def run(changed):
        (package / "emoji.json").write_text(json.dumps(changed))
        prepare("emoji", source=package, out=tmp_path / "out")

    lacking = [{key: value for key, value in entry.items() if key != "sheet_x"} for entry in entries]
    with pytest.raises(ValueError, match=r"emoji\.json: entry 0 lacks sheet_x"):
        run(lacking)
    with pytest.raises(ValueError, match=r"RED HEART: its sprite .* lies outside of the sheet \(102, 102\)"):
        run([entry | {"sheet_x": 3} for entry in entries])
    (package / "img" / "google" / "sheets" / "32.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"google/sheets/32\.png not found"):
        run(entries)
    (package / "emoji.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no emoji\.json, nor package/emoji\.json"):
        prepare("emoji", source=package, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over(package, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="out exists"):
        prepare("emoji", source=tmp_path / "absent", out=tmp_path / "out")
