"""Stamps: pictures with captions written and spoken in many languages, Debian's `tuxpaint-stamps-default`.

A stamp is a caption file `animals/birds/crow.txt` with a picture `crow.png` or `crow.svg` and spoken captions
`crow_desc.ogg` (English), `crow_desc_fr.ogg`, ... beside it.
"""

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from mmjax.data.prepare._archives import find_root, unpacked
from mmjax.data.prepare._pictures import png_on_white, rasterize
from mmjax.data.prepare._splits import held_out
from mmjax.data.records import Record
from mmjax.data.storage import DatasetInfo, Split, refuse_existing, write_dataset

HELD_OUT = 0.1  # share of the captions in `test`
_STAMPS = "usr/share/tuxpaint/stamps"
_COPYRIGHT = "usr/share/doc/tuxpaint-stamps-default/copyright"
_TRANSLATION = re.compile(r"(?P<language>[A-Za-z_@]+)\.utf8=(?P<caption>.*)")
_SPOKEN = re.compile(r"_desc(_(?P<language>[A-Za-z_@]+))?(\.ogg|\.wav)+")
_ENGLISH = "en"


def prepare(*, source: str | os.PathLike[str], out: str | os.PathLike[str], size: int = 256) -> dict[str, Split]:
    """Writes the captioned stamps as pictures on white.

    Splits: `test`, a tenth of the captions, and `train`; no English caption is in both. Fields: `image`, `captions`
    (English), `captions_xx` for each other language xx, `audio` and `audio_xx` (spoken captions, encoded), `label`
    (index of `category`, the top folder), `folder`, `id`.

    Args:
      source: what `apt-get download tuxpaint-stamps-default` fetches, or the folder unpacked from it.
      out: the folder to make.
      size: longest side of a picture, pixels: larger ones are scaled down to it, vector graphics drawn at it.

    Returns:
      What was written of each split.

    Raises:
      FileExistsError: `out` exists.
      FileNotFoundError: `source` is not there, or lacks the stamps or their licence.
      ValueError: `source` is no archive.
    """
    refuse_existing(out)
    with unpacked(source) as folder:
        root = find_root(folder, _STAMPS, source=source) / _STAMPS
        licence = (find_root(folder, _COPYRIGHT, source=source) / _COPYRIGHT).read_text("utf-8")
        stamps, left_out = [], Counter[str]()
        for file in sorted(root.rglob("*.txt")):
            try:
                stamps.append(_read_stamp(file, root, size))
            except _LeftOut as reason:
                left_out[str(reason)] += 1
        if not stamps:
            raise ValueError(f"no captioned picture in {root}; left out: {dict(left_out)}")
        categories = sorted({stamp.category for stamp in stamps})
        info = DatasetInfo(
            name="stamps",
            licence="GPL-2.0-or-later",
            source="Debian package tuxpaint-stamps-default",
            class_names=categories,
            notes={
                "captions": sum(len(stamp.captions) for stamp in stamps),
                "languages": sorted({language for stamp in stamps for language in stamp.captions}),
                "spoken captions": sum(len(stamp.spoken) for stamp in stamps),
                "left out": dict(left_out),
            },
        )

        def records(test: bool) -> Iterator[Record]:
            for stamp in stamps:
                if held_out(stamp.captions[_ENGLISH], share=HELD_OUT) == test:
                    yield _record(stamp, categories)

        splits = {"train": records(False), "test": records(True)}
        return write_dataset(out, splits, info=info, licence_files={"copyright": licence})


class _Stamp(NamedTuple):
    name: str
    picture: bytes
    captions: Mapping[str, str]  # by language
    spoken: Mapping[str, Path]  # likewise

    @property
    def category(self) -> str:
        return self.name.split("/")[0]


class _LeftOut(Exception):
    """A stamp cannot be used; the message is the reason, one for all stamps of its kind."""


def read_captions(text: str) -> dict[str, str]:
    r"""Captions by language: English on the first line, `xx.utf8=...` on the others.

    >>> read_captions("A crow.\nfr.utf8=Un corbeau.\n")
    {'en': 'A crow.', 'fr': 'Un corbeau.'}
    """
    first, *others = text.splitlines() or [""]
    captions = {_ENGLISH: first.strip()}
    for line in others:
        if match := _TRANSLATION.fullmatch(line):
            captions[match["language"]] = match["caption"].strip()
    return {language: caption for language, caption in captions.items() if caption}


def _read_stamp(file: Path, root: Path, size: int) -> _Stamp:
    try:
        captions = read_captions(file.read_text("utf-8"))
    except UnicodeDecodeError as error:
        raise _LeftOut("captions that are not UTF-8") from error
    if _ENGLISH not in captions:
        raise _LeftOut("no English caption")
    name = file.relative_to(root).with_suffix("").as_posix()
    return _Stamp(name, _picture(file, size), captions, _spoken(file))


def _picture(file: Path, size: int) -> bytes:
    raster, vector = file.with_suffix(".png"), file.with_suffix(".svg")
    try:
        if raster.is_file():
            with Image.open(raster) as picture:
                return png_on_white(picture, size=size)
        if vector.is_file():
            return png_on_white(rasterize(vector, size=size), size=size)
    except ModuleNotFoundError as error:
        raise _LeftOut(f"SVG only, which needs {error.name}: pip install {error.name}") from error
    except (OSError, ValueError) as error:
        raise _LeftOut(f"undecodable picture: {error}") from error
    raise _LeftOut("no picture")


def _spoken(file: Path) -> dict[str, Path]:
    spoken: dict[str, Path] = {}
    # In order of suffix, then name: where there are both, Ogg is taken and not WAV.
    for sound in sorted(file.parent.glob(f"{glob.escape(file.stem)}_desc*"), key=lambda path: (path.suffix, path.name)):
        if match := _SPOKEN.fullmatch(sound.name.removeprefix(file.stem)):
            spoken.setdefault(match["language"] or _ENGLISH, sound)
    return spoken


def _record(stamp: _Stamp, categories: Sequence[str]) -> Record:
    others = {f"captions_{language}": [text] for language, text in stamp.captions.items() if language != _ENGLISH}
    audio = {f"audio_{language}": sound.read_bytes() for language, sound in stamp.spoken.items()}
    if f"audio_{_ENGLISH}" in audio:
        audio["audio"] = audio.pop(f"audio_{_ENGLISH}")
    return {
        "id": stamp.name,
        "image": stamp.picture,
        "captions": [stamp.captions[_ENGLISH]],
        "label": categories.index(stamp.category),
        "category": stamp.category,
        "folder": stamp.name.rpartition("/")[0],
        **others,
        **audio,
    }
