"""Records to examples: what a worker does, a chunk of positions at a time, as a pure function of the positions."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmjax.data.bank import FeatureBank, record_key
from mmjax.data.images import decode_image
from mmjax.data.order import PADDING, Order
from mmjax.data.randomness import Draws
from mmjax.data.records import CorruptRecordError, locate, validate_record
from mmjax.data.tokenizers import Tokenizer
from mmjax.data.transforms import Augment

CHUNK = 64  # examples that a worker reads at a time
_PROBED = 100


class Chunk(NamedTuple):
    """Consecutive examples.

    Attributes:
      fields: by name, each `[N, ...]`: `index` and `mask`, and as far as they are read `image` (uint8),
        `text` (at full length), `length` (tokens of each text), `label`, `<name>_features` and `key`. The rows
        of bad records and of padding hold nothing, their mask is False.
      errors: row, place and reason of each bad record.
    """

    fields: dict[str, np.ndarray]
    errors: tuple[tuple[int, str, str], ...]


class ExampleReader(NamedTuple):
    """Reads, decodes, augments and tokenizes; it pickles with its source.

    Attributes:
      source: random access to records.
      order: which record stands at a position.
      augment: of the pictures, or None where they are not read.
      tokenizer: of the captions, or None where they are not read.
      context_length: tokens of a text.
      caption_weights: see `choose_caption`.
      labels: whether the records have labels.
      banks: by name, embeddings to read as `<name>_features`.
      view_epochs: epochs after which random numbers repeat; None = never.
      keys: whether to read `key`, the `record_key` of each record.
      strict: whether a failure of the disk is raised, and does not make a bad record: where records are read twice, or
        by several processes, what is bad must stay bad, and for all.
    """

    source: Any
    order: Order
    augment: Augment | None
    tokenizer: Tokenizer | None
    context_length: int
    caption_weights: Sequence[float] | None
    labels: bool
    banks: Mapping[str, FeatureBank] = {}
    view_epochs: int | None = None
    keys: bool = False
    strict: bool = False

    def read(self, positions: Sequence[int]) -> Chunk:
        """The examples at these positions of the stream."""
        count = len(positions)
        fields: dict[str, np.ndarray] = {"index": np.full(count, PADDING, np.int64), "mask": np.zeros(count, bool)}
        if self.augment:
            size = self.augment.spec.size
            fields["image"] = np.zeros((count, size, size, 3), np.uint8)
        if self.labels:
            fields["label"] = np.zeros(count, np.int32)
        epochs, keys = np.zeros(count, np.int64), np.zeros(count, np.uint64)
        captions = [""] * count
        errors = []
        for row, position in enumerate(positions):
            epoch, index = self.order.locate(position)
            if self.view_epochs:
                epoch %= self.view_epochs
            fields["index"][row], epochs[row] = index, epoch
            if index == PADDING:
                continue
            where = locate(self.source, index)
            try:
                record = validate_record(self.source[index], where=where)
                example = self._example(record, Draws(self.order.seed, epoch, index), where)
            except CorruptRecordError as error:
                if self.strict and isinstance(error.__cause__, OSError):
                    raise
                errors.append((row, error.where, error.reason))
                continue
            except Exception as error:
                error.add_note(f"while reading {where}")
                raise
            if self.keys or self.banks:
                keys[row] = record_key(record)
            captions[row] = example.pop("caption", "")
            for name, value in example.items():
                fields[name][row] = value
            fields["mask"][row] = True
        if self.keys:
            fields["key"] = keys
        for name, bank in self.banks.items():
            fields[f"{name}_features"], missing = self._from_bank(bank, fields, epochs, keys)
            errors += missing
        if self.tokenizer:
            fields["text"], present = self.tokenizer.encode(captions, length=self.context_length)
            fields["length"] = present.sum(axis=1, dtype=np.int32) * fields["mask"]
        return Chunk(fields, tuple(errors))

    def _from_bank(
        self, bank: FeatureBank, fields: Mapping[str, np.ndarray], epochs: np.ndarray, keys: np.ndarray
    ) -> tuple[np.ndarray, list[tuple[int, str, str]]]:
        """The rows of the records read so far; a record without one is bad from here on."""
        mask, index = fields["mask"], fields["index"]
        read = np.flatnonzero(mask)
        features = np.zeros((len(mask), bank.info.dim), np.float32)
        features[read], mask[read] = bank.lookup(index[read], epochs[read])
        bank.check_keys(index[mask], keys[mask])
        reason = f"has no row in the feature bank {bank.folder}: it could not be read when that was written"
        return features, [(row, locate(self.source, index[row]), reason) for row in read[~mask[read]]]

    def _example(self, record: Mapping[str, Any], draws: Draws, where: str) -> dict[str, Any]:
        example: dict[str, Any] = {}
        if self.augment:
            example["image"] = self.augment(decode_image(_field(record, "image", where), where=where), draws)
        if self.tokenizer:
            captions = _field(record, "captions", where)
            example["caption"] = choose_caption(captions, draws, weights=self.caption_weights)
        if self.labels:
            example["label"] = _field(record, "label", where)
        return example


@dataclasses.dataclass(frozen=True)
class Chunks:
    """The stream from a position on, cut into chunks: the random-access source that grain's workers share."""

    reader: ExampleReader
    start: int
    stop: int

    def __len__(self) -> int:
        return -(-(self.stop - self.start) // CHUNK)

    def __getitem__(self, index: int) -> Chunk:
        first = self.start + index * CHUNK
        return self.reader.read(range(first, min(first + CHUNK, self.stop)))


def probe(source: Any, *, image: bool, captions: bool) -> frozenset[str]:
    """Field names of the first record that can be read.

    Raises:
      ValueError: it lacks a field that is to be read.
      CorruptRecordError: none of the first records can be read.

    >>> sorted(probe([{"captions": ["a dog"], "label": 3}], image=False, captions=True))
    ['captions', 'label']
    """
    for index in range(len(source)):
        try:
            fields = frozenset(validate_record(source[index], where=locate(source, index)))
        except CorruptRecordError:
            if index == min(len(source), _PROBED) - 1:
                raise
            continue
        for name, argument, wanted in (("image", "image", image), ("captions", "tokenizer", captions)):
            if wanted and name not in fields:
                found = f"{locate(source, index)} has no {name}, only {', '.join(sorted(fields))}"
                raise ValueError(f"{found}; pass {argument}=None to do without")
        return fields
    raise ValueError("the source has no records")


def choose_caption(captions: Sequence[str], draws: Draws, *, weights: Sequence[float] | None = None) -> str:
    """One of several captions, by the numbers of the name "caption".

    Args:
      captions: one or more.
      draws: random numbers of the example.
      weights: of the first, second, ... caption, the first positive; captions beyond are never taken, so that
        `(1,)` takes the first one. All are alike by default.

    >>> choose_caption(["a dog", "a brown dog"], Draws(0, 0, 0), weights=(1,))
    'a dog'
    """
    number = draws.uniform("caption", 1)[0]
    if weights is None:
        return captions[int(number * len(captions))]
    ends = np.cumsum(weights[: len(captions)], dtype=np.float64)
    return captions[int(np.searchsorted(ends, number * ends[-1], side="right"))]


def _field(record: Mapping[str, Any], name: str, where: str) -> Any:
    if name not in record:
        raise CorruptRecordError(where, f"has no {name}, only {', '.join(record)}")
    return record[name]
