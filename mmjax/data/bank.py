"""The feature bank: what a frozen tower makes of every record, computed once, read through a memory map.

    bank/bank.json             of which records, views and tower it is: `BankInfo`
    bank/keys.npy              uint64 [N], whose row it is: a digest of the record's id and captions
    bank/valid.npy             bool [E, N], False where the record could not be read
    bank/features-00000.npy    float32 or float16 [N, D], not normalised; one file an epoch of views

A row lies at its record's position in the source, so that a batch is looked up by its `index`. The arrays are mapped
and not loaded: ten million rows of 512 numbers cost no memory, and a lookup touches the pages of its rows alone, where
the records of a container would be found, checked and decoded one by one.
"""

import hashlib
import inspect
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmjax import registry
from mmjax.config import difference
from mmjax.data.storage import refuse_existing

INFO_FILE = "bank.json"
DTYPES = ("float32", "float16")
_FORMAT = "mmjax-bank-1"


class StaleBankError(ValueError):
    """A bank is not of the records, views or tower that it is read for."""


class BankInfo(NamedTuple):
    """What `bank.json` says.

    Attributes:
      modality: what was embedded, "image" or "text".
      source: the source's name and settings, see `describe_source`.
      records: `N`, the length of the source.
      preprocessing: of the tower's input, see `mmjax.data.views`.
      views: what is random about that input, with the `seed` if anything is, see `mmjax.data.views`.
      epochs: `E`, how many epochs of views are stored; 1 where nothing is random.
      tower: the tower's settings.
      params_hash: digest of its parameters.
      dim: `D`.
      dtype: of the stored numbers, "float32" or "float16".
      origin: where the parameters are from; for the reader, never compared.
    """

    modality: str
    source: Mapping[str, Any]
    records: int
    preprocessing: Mapping[str, Any]
    views: Mapping[str, Any]
    epochs: int
    tower: Mapping[str, Any]
    params_hash: str
    dim: int
    dtype: str = "float32"
    origin: Mapping[str, Any] = {}


class Block(NamedTuple):
    """Some rows of one epoch: positions in the source [n], keys [n] (`record_key`), embeddings [n, D]."""

    epoch: int
    index: np.ndarray
    keys: np.ndarray
    features: np.ndarray


class FeatureBank:
    """A bank on disk, mapped; a copy in another process maps it anew.

    Attributes:
      folder: where it lies.
      info: what `bank.json` says.
      keys: uint64 `[N]`, see `record_key`.
      valid: bool `[E, N]`, which rows were computed.

    Raises:
      FileNotFoundError: the folder is no bank.
      ValueError: its files do not fit together.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)
        self.info = _read_info(self.folder)
        self.keys = self._map("keys.npy", (self.info.records,), "uint64")
        self.valid = self._map("valid.npy", (self.info.epochs, self.info.records), "bool")
        shape = (self.info.records, self.info.dim)
        self._features = [self._map(_file(epoch), shape, self.info.dtype) for epoch in range(self.info.epochs)]

    def __len__(self) -> int:
        return self.info.records

    def __reduce__(self) -> tuple[Any, ...]:
        return FeatureBank, (self.folder,)

    def __repr__(self) -> str:
        return f"FeatureBank({str(self.folder)!r}, records={self.info.records}, epochs={self.info.epochs})"

    @property
    def random(self) -> bool:
        """Whether the views of two epochs differ."""
        return "seed" in self.info.views

    def lookup(self, index: np.ndarray, epoch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings of records as they look in given epochs.

        Args:
          index: `[B]` integers, positions in the source.
          epoch: `[B]` integers, below `E` unless nothing is random.

        Returns:
          Embeddings `[B, D]` float32, and bool `[B]`: False where there is none, a row of NaN.
        """
        stored = epoch if self.random else np.zeros_like(epoch)
        rows = np.empty((len(index), self.info.dim), np.float32)
        for number in np.unique(stored):
            of_epoch = stored == number
            rows[of_epoch] = self._features[number][index[of_epoch]]
        return rows, self.valid[stored, index]

    def check(self, **expected: Any) -> None:
        """Compares fields of `info` with what the reader has.

        Raises:
          StaleBankError: they differ; the message gives both.
        """
        own = {name: getattr(self.info, name) for name in expected}
        if differences := difference(own, expected):
            raise StaleBankError(
                f"the feature bank {self.folder} is not of this run (bank -> run): {'; '.join(differences)}; change "
                "the run, or write another bank with experiments.embed"
            )

    def check_keys(self, index: np.ndarray, keys: np.ndarray) -> None:
        """Compares records, by their keys, with those that were embedded.

        Raises:
          StaleBankError: a record is another one.
        """
        stale = np.flatnonzero(self.keys[index] != keys)
        if len(stale):
            row = stale[0]
            raise StaleBankError(
                f"the feature bank {self.folder} is of other records: record {index[row]} has the key "
                f"{self.keys[index[row]]:016x} in it and {keys[row]:016x} here, so id or captions have changed; "
                "write another bank with experiments.embed"
            )

    def _map(self, file: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        path = self.folder / file
        if not path.is_file():
            raise FileNotFoundError(f"the feature bank {self.folder} lacks {file}; copy it again")
        array = np.load(path, mmap_mode="r")
        if array.shape != shape or array.dtype != dtype:
            found = f"{array.dtype} {array.shape}"
            raise ValueError(f"{path} holds {found}, expected {dtype} {shape} by its {INFO_FILE}; copy it again")
        return array


def write_bank(out: str | os.PathLike[str], blocks: Iterable[Block], *, info: BankInfo) -> None:
    """Writes a bank: all of it, or nothing.

    Args:
      out: the folder to make; it must not exist.
      blocks: rows in any order, iterated once; records that are in none become invalid.
      info: description of the whole.

    Raises:
      FileExistsError: `out` exists.
      ValueError: an embedding is not finite, in the dtype of the bank.
    """
    if info.dtype not in DTYPES:
        raise ValueError(f"write_bank: dtype is {info.dtype!r}, expected one of {', '.join(map(repr, DTYPES))}")
    out = Path(out)
    refuse_existing(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    partial.mkdir()
    try:
        _write_arrays(partial, blocks, info)
        content = {"format": _FORMAT, **info._asdict()}
        (partial / INFO_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def save_blocks(path: str | os.PathLike[str], blocks: Iterable[Block]) -> int:
    """Writes blocks to a file, from which `load_blocks` gives them back, and returns how many rows they have."""
    rows = 0
    with open(path, "wb") as file:
        for block in blocks:
            rows += len(block.index)
            for field in block:
                np.save(file, field)
    return rows


def load_blocks(path: str | os.PathLike[str]) -> Iterator[Block]:
    """The blocks of a file, in their order."""
    with open(path, "rb") as file:
        while file.peek(1):
            epoch, index, keys, features = (np.load(file) for _ in Block._fields)
            yield Block(int(epoch), index, keys, features)


def record_key(record: Mapping[str, Any]) -> int:
    """64 bits that tell a record from others: a digest of its id and captions.

    >>> record_key({"id": "7", "captions": ["a dog"]}) == record_key({"id": "7", "captions": ["a cat"]})
    False
    """
    text = json.dumps([record.get("id"), record.get("captions")])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def describe_source(name: str, **settings: Any) -> dict[str, Any]:
    """A source's name and settings, defaults included, as a bank remembers them.

    Files and folders count by their last name, since data moves from machine to machine; whether the records are the
    same is told by their keys.

    >>> describe_source("arrayrecord", path="data/emoji")
    {'name': 'arrayrecord', 'split': 'train', 'path': 'emoji'}
    """
    build = registry.find("mmjax.data.sources", name).build
    defaults = {key: parameter.default for key, parameter in inspect.signature(build).parameters.items()}
    plain = {
        key: value for key, value in defaults.items() if isinstance(value, bool | int | float | str | tuple | None)
    }
    return {"name": name, **{key: _last_name(value) for key, value in {**plain, **settings}.items()}}


def _read_info(folder: Path) -> BankInfo:
    path = folder / INFO_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no feature bank, it has no {INFO_FILE}; experiments.embed writes one")
    content = json.loads(path.read_text(encoding="utf-8"))
    found = content.pop("format", None)
    if found != _FORMAT:
        raise ValueError(f"{path}: format is {found!r}, expected {_FORMAT!r}")
    return BankInfo(**content)


def _write_arrays(folder: Path, blocks: Iterable[Block], info: BankInfo) -> None:
    keys = np.zeros(info.records, np.uint64)
    valid = np.zeros((info.epochs, info.records), bool)
    shape = (info.records, info.dim)
    files = [
        np.lib.format.open_memmap(folder / _file(epoch), mode="w+", dtype=info.dtype, shape=shape)
        for epoch in range(info.epochs)
    ]
    for block in blocks:
        with np.errstate(over="ignore"):  # Overflow is reported below, with the record that it happened to.
            features = block.features.astype(info.dtype)
        broken = np.flatnonzero(~np.isfinite(features).all(axis=1))
        if len(broken):
            fix = "" if info.dtype == "float32" else "; store float32"
            raise ValueError(f"the embedding of record {block.index[broken[0]]} is not finite in {info.dtype}{fix}")
        files[block.epoch][block.index] = features
        keys[block.index] = block.keys
        valid[block.epoch, block.index] = True
    for features, present in zip(files, valid, strict=True):
        features[~present] = np.nan
        features.flush()
    np.save(folder / "keys.npy", keys)
    np.save(folder / "valid.npy", valid)


def _file(epoch: int) -> str:
    return f"features-{epoch:05d}.npy"


def _last_name(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_last_name(item) for item in value]
    return os.path.basename(os.path.normpath(value)) if isinstance(value, str | os.PathLike) else value
