"""Emoji: one concept drawn by four vendors, from the npm package `emoji-datasource`.

Names and categories are of the package; keywords and the captions of other languages of `emojibase-data`, where given.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from mmjax.data.prepare._archives import find_root, unpacked
from mmjax.data.prepare._emojibase import Words, code_points, fields, read_words
from mmjax.data.prepare._pictures import png_on_white
from mmjax.data.prepare._splits import held_out
from mmjax.data.records import Record
from mmjax.data.storage import DatasetInfo, Split, refuse_existing, write_dataset

TRAIN_VENDORS = ("apple", "google", "twitter")
NEW_STYLE_VENDOR = "facebook"
VENDORS = (*TRAIN_VENDORS, NEW_STYLE_VENDOR)
SPRITE, CELL = 32, 34  # pixels: a border of one around each sprite
HELD_OUT = 0.1  # share of the concepts that are new

_PICTURE_LICENCES = (
    "Apple's are (c) Apple Inc., not licensed for commercial use; Google's are Apache-2.0; Twitter's are CC-BY-4.0; "
    "Facebook's are (c) Facebook, Inc., without a clear licence"
)


def prepare(
    *,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    keywords: str | os.PathLike[str] | None = None,
) -> dict[str, Split]:
    """Writes the concepts that all four vendors draw, 32-pixel pictures on white.

    Splits: `train`, 90 % of the concepts by apple, google and twitter; `new_style`, the same concepts by facebook;
    `new_concept`, the other concepts, by all four. Fields: `image`, `captions`, `label` (index of `category`),
    `subcategory`, `concept` (code points), `vendor`, `id`; with keywords also `keywords`, and for each other
    language xx `captions_xx` and `keywords_xx`.

    Args:
      source: what `npm pack emoji-datasource` fetches, or the folder unpacked from it.
      out: the folder to make.
      keywords: likewise of `npm pack emojibase-data`.

    Returns:
      What was written of each split.

    Raises:
      FileExistsError: `out` exists.
      FileNotFoundError: `source` lacks a file of the package.
      ValueError: `source` is no archive, or the package has another form.
    """
    refuse_existing(out)
    with unpacked(source) as folder:
        root = find_root(folder, "emoji.json", "package", source=source)
        entries = _entries(root / "emoji.json")
        sheets = {vendor: _sheet(root / "img" / vendor / "sheets" / "32.png") for vendor in VENDORS}
        version = json.loads((root / "package.json").read_text("utf-8")).get("version", "unknown")
        licences = {"LICENSE": (root / "LICENSE").read_text("utf-8")}
        words: Mapping[str, Mapping[str, Words]] = {}
        if keywords is not None:
            with unpacked(keywords) as other:
                base = find_root(other, "en/data.json", "package", source=keywords)
                words = read_words(base)
                licences["LICENSE-emojibase-data"] = (base / "LICENSE").read_text("utf-8")

        drawn = [entry for entry in entries if all(entry[f"has_img_{vendor}"] for vendor in VENDORS)]
        new = [entry for entry in drawn if held_out(entry["name"], share=HELD_OUT)]
        known = [entry for entry in drawn if not held_out(entry["name"], share=HELD_OUT)]
        categories = sorted({entry["category"] for entry in drawn})

        def records(concepts: Sequence[Mapping[str, Any]], vendors: Sequence[str]) -> Iterator[Record]:
            for concept in concepts:
                described = _describe(concept, categories, words)
                for vendor in vendors:
                    picture = png_on_white(_sprite(sheets[vendor], concept))
                    identity = f"{described['concept']}/{vendor}"
                    yield {"id": identity, "image": picture, "vendor": vendor, **described}

        info = DatasetInfo(
            name="emoji",
            licence=f"names and categories: MIT; pictures: {_PICTURE_LICENCES}",
            source=f"npm package emoji-datasource {version}" + (" with emojibase-data" if words else ""),
            class_names=categories,
            notes={
                "concepts": {"all": len(entries), "drawn by all vendors": len(drawn), "new_concept": len(new)},
                "languages": sorted(words),
            },
        )
        return write_dataset(
            out,
            {
                "train": records(known, TRAIN_VENDORS),
                "new_style": records(known, (NEW_STYLE_VENDOR,)),
                "new_concept": records(new, VENDORS),
            },
            info=info,
            licence_files=licences,
        )


def captions(entry: Mapping[str, Any]) -> list[str]:
    """Phrases for an emoji: its name, its short names, its name with the category.

    >>> captions({"name": "GRINNING FACE", "short_names": ["grinning_face", "grin"], "category": "Smileys & Emotion"})
    ['grinning face', 'grin', 'grinning face, an emoji of smileys and emotion']
    """
    name = entry["name"].lower()
    short_names = [re.sub(r"(?<=\w)[-_](?=\w)", " ", short.lower()) for short in entry["short_names"]]
    if any(short.startswith("flag-") for short in entry["short_names"]):
        # "Peru Flag", "flag-pe": a country code is no caption.
        name, short_names = f"flag of {name.removesuffix(' flag')}", []
    category = entry["category"].lower().replace("&", "and")
    return list(dict.fromkeys([name, *short_names, f"{name}, an emoji of {category}"]))


def _describe(entry: Mapping[str, Any], categories: Sequence[str], words: Mapping[str, Mapping[str, Words]]) -> Record:
    texts = captions(entry)
    english = words.get("en", {}).get(code_points(entry["unified"]))
    if english is not None and english.name not in texts:
        texts.insert(1, english.name)
    return {
        "captions": texts,
        "label": categories.index(entry["category"]),
        "category": entry["category"],
        "subcategory": entry["subcategory"],
        "concept": entry["unified"].lower(),
        **fields(words, entry["unified"]),
    }


def _entries(file: Path) -> list[dict[str, Any]]:
    entries = json.loads(file.read_text("utf-8"))
    needed = {"name", "unified", "short_names", "category", "subcategory", "sheet_x", "sheet_y"}
    needed |= {f"has_img_{vendor}" for vendor in VENDORS}
    for position, entry in enumerate(entries):
        if lacking := needed - entry.keys():
            raise ValueError(f"{file}: entry {position} lacks {', '.join(sorted(lacking))}")
    return entries


def _sheet(file: Path) -> Image.Image:
    if not file.is_file():
        raise FileNotFoundError(f"{file} not found; emoji-datasource has a sheet for each vendor")
    with Image.open(file) as sheet:
        return sheet.convert("RGBA")


def _sprite(sheet: Image.Image, entry: Mapping[str, Any]) -> Image.Image:
    left, top = (entry[axis] * CELL + (CELL - SPRITE) // 2 for axis in ("sheet_x", "sheet_y"))
    box = (left, top, left + SPRITE, top + SPRITE)
    if box[2] > sheet.width or box[3] > sheet.height:
        raise ValueError(f"{entry['name']}: its sprite {box} lies outside of the sheet {sheet.size}")
    return sheet.crop(box)
