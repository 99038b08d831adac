"""The embedded data: procedural pictures of shapes with compositional captions, by seed and index alone."""

import dataclasses
import operator
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from mmjax.data.shapes.descriptions import KINDS, describe, enumerate_descriptions
from mmjax.data.shapes.grammar import caption, paraphrases
from mmjax.data.shapes.hashing import code, mix
from mmjax.data.shapes.labels import LABELS, class_names, class_word, prompts
from mmjax.data.shapes.layout import Layout, scene
from mmjax.data.shapes.negatives import NEGATIVES, make_negative
from mmjax.data.shapes.renderer import Renderer
from mmjax.data.shapes.sampling import DistinctRows, IndependentRows
from mmjax.data.shapes.splits import HOLDOUTS, SPLITS, split_of
from mmjax.data.shapes.vocabulary import BACKGROUNDS, COLOURS, SHAPES, Vocabulary, known

_ROW, _LAYOUT, _SHADES = code("row"), code("layout"), code("shades")
_SMALLEST_IMAGE = 32


@dataclasses.dataclass(kw_only=True, eq=False)
class ShapesSource:
    """Random access to pictures of one to four shapes, each with captions that are true of it.

    A record has `image` (uint8 `[H, W, 3]`), `captions`, `label`, `id` and `scene` (see `layout.scene`); on
    request `segmentation` (uint8 `[H, W]`: 0 for the field, `1 + i` for `scene["objects"][i]`), and
    `negative_captions` beside `negative_kinds`. A picture has one canonical caption, its first, and pictures
    of different captions look different. A record is a function of the settings and its index alone.

    Attributes:
      split: `train`, `validation` or `test`; no description is in two of them, whatever the seeds.
      seed: which pictures of the split.
      num_records: the length; None for 1,000,000 in `train` and 1,000 elsewhere. At most 2^63 - 1.
      unique: whether no description comes twice; None for True outside `train`.
      image_size: H = W, pixels, at least 32.
      kinds: weight of each kind of scene: `single`, `count` (two to four alike) and `pair` (with a relation).
      shapes: the shapes in use.
      colours: the colours of the things.
      backgrounds: the colours of the field.
      holdout: what keeps the splits apart: `captions`, or the harder `combinations` of colour and shape.
      overlap: how much of a pair's smaller thing may lie over or under the other, 0 to 0.5 of its diameter.
      label: what is classified: `background`, or `shape`, `colour` or `size`. Of a pair, those of the left or
        upper thing; as prompts name one thing, classify without pairs: `kinds={"single": 1, "count": 1}`.
      paraphrase: whether `captions` holds all equivalent forms or the canonical one alone.
      segmentation: whether to add the masks.
      negatives: kinds of hard negatives to add; a record holds those that its scene allows.
      images: whether to draw the pictures.

    >>> source = ShapesSource(split="test", seed=1)
    >>> len(source), source[0]["image"].shape
    (1000, (32, 32, 3))
    >>> source[0]["captions"]
    ['a small blue circle right of a small pink cross on a black field']
    """

    split: str = "train"
    seed: int = 0
    num_records: int | None = None
    unique: bool | None = None
    image_size: int = _SMALLEST_IMAGE
    kinds: Mapping[str, float] = dataclasses.field(default_factory=lambda: {"pair": 0.8, "single": 0.1, "count": 0.1})
    shapes: tuple[str, ...] = SHAPES
    colours: tuple[str, ...] = tuple(COLOURS)
    backgrounds: tuple[str, ...] = tuple(BACKGROUNDS)
    holdout: str = "captions"
    overlap: float = 0.0
    label: str = "shape"
    paraphrase: bool = False
    segmentation: bool = False
    negatives: tuple[str, ...] = ()
    images: bool = True

    synthetic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.kinds = {kind: float(self.kinds[kind]) for kind in known("kinds", self.kinds, KINDS)}
        self.shapes = known("shapes", self.shapes, SHAPES)
        self.colours = known("colours", self.colours, COLOURS)
        self.backgrounds = known("backgrounds", self.backgrounds, BACKGROUNDS)
        self.negatives = known("negatives", self.negatives, NEGATIVES) if self.negatives else ()
        training = self.split == "train"
        self._length = (1_000_000 if training else 1_000) if self.num_records is None else self.num_records
        self._check()

        self._vocabulary = Vocabulary(self.shapes, self.colours, self.backgrounds)
        self._classes = {name: number for number, name in enumerate(self.class_names)}
        self._layout = Layout(self.image_size, overlap=self.overlap)
        self._renderer = Renderer(self.image_size)
        self._key = mix(code(self.split) + self.seed)
        self._negative_keys = {negative: code(negative) for negative in self.negatives}
        groups = self._groups()
        self._num_captions = sum(map(len, groups.values()))
        if training if self.unique is None else not self.unique:
            self._sample = IndependentRows(groups, self.kinds)
        elif self._length <= self._num_captions:
            self._sample = DistinctRows(groups, self.kinds, number=self._length, seed=self._key)
        else:
            raise ValueError(
                f"shapes: num_records is {self._length}, but {self.split} has {self._num_captions} "
                "descriptions; lower num_records, set unique=False or use more words"
            )

    def _check(self) -> None:
        for setting, allowed in (("split", SPLITS), ("holdout", HOLDOUTS), ("label", LABELS)):
            known(setting, getattr(self, setting), allowed)
        if not 0 < self._length < 2**63:
            raise ValueError(f"shapes: num_records is {self._length}, expected 1 to 2^63 - 1")
        if self.image_size < _SMALLEST_IMAGE:
            raise ValueError(f"shapes: image_size is {self.image_size}, expected at least {_SMALLEST_IMAGE}")
        if min(self.kinds.values()) <= 0:
            raise ValueError(f"shapes: kinds is {self.kinds}, expected positive weights; leave out the others")
        if not 0 <= self.overlap <= 0.5:
            raise ValueError(f"shapes: overlap is {self.overlap}, expected 0 to 0.5")
        for negative in self.negatives:
            if not set(NEGATIVES[negative]) & set(self.kinds):
                raise ValueError(
                    f"shapes: negatives has {negative!r}, which needs one of the kinds "
                    f"{', '.join(NEGATIVES[negative])}; kinds has {', '.join(self.kinds)}"
                )
        if "replace_noun" in self.negatives and len(self.shapes) == 1:
            raise ValueError(f"shapes: negatives has 'replace_noun', but shapes has {self.shapes[0]!r} alone")

    def _groups(self) -> dict[str, np.ndarray]:
        """The rows of the split, by kind."""
        groups = {}
        for kind in self.kinds:
            descriptions = enumerate_descriptions(self._vocabulary, kind)
            split = split_of(descriptions, self._vocabulary, holdout=self.holdout)
            groups[kind] = descriptions.rows[split == SPLITS.index(self.split)]
            if not len(groups[kind]):
                raise ValueError(
                    f"shapes: no description of kind {kind!r} falls into {self.split}: "
                    f"all {len(descriptions.rows)} are in other splits; use more words or leave out the kind"
                )
        return groups

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self.__getitem__, range(self._length))

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = operator.index(index)
        if not 0 <= index < self._length:
            raise IndexError(f"shapes: index {index}, expected 0 to {self._length - 1}")
        key = mix(self._key + index)
        description = describe(self._sample(index, mix(key ^ _ROW)), self._vocabulary)
        placements = self._layout(description, mix(key ^ _LAYOUT))
        record: dict[str, Any] = {
            "captions": paraphrases(description) if self.paraphrase else [caption(description)],
            "label": self._classes[class_word(self.label, description)],
            "id": f"shapes/{self.split}/{self.seed}/{index}",
            "scene": scene(description, placements),
        }
        if self.images:
            record["image"] = self._renderer.image(description.background, placements, mix(key ^ _SHADES))
        if self.segmentation:
            record["segmentation"] = self._renderer.segmentation(placements)
        if self.negatives:
            negatives = {
                kind: make_negative(
                    kind, description, placements, vocabulary=self._vocabulary, bits=mix(key ^ negative_key)
                )
                for kind, negative_key in self._negative_keys.items()
            }
            record["negative_kinds"] = [kind for kind, negative in negatives.items() if negative]
            record["negative_captions"] = [caption(negative) for negative in negatives.values() if negative]
        return record

    def without_images(self) -> "ShapesSource":
        """The same records, no picture drawn."""
        return dataclasses.replace(self, images=False)

    @property
    def num_captions(self) -> int:
        """How many canonical captions the split has."""
        return self._num_captions

    @property
    def class_names(self) -> tuple[str, ...]:
        """The word of each label."""
        return class_names(self.label, self._vocabulary)

    @property
    def prompts(self) -> tuple[str, ...]:
        """Captions of single things, with `{}` for the class."""
        return prompts(self.label, self._vocabulary)


# The folder is the registry: `build` takes the settings, and its signature is their schema.
build = ShapesSource
