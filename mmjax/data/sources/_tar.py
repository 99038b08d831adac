"""An index of a tar shard: members grouped by key, any of them by one seek, nothing ever extracted."""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np


class TarIndex(NamedTuple):
    """The members of one shard, those of a key together, keys in order of first appearance.

    Attributes:
      keys: member names up to the first dot of the last part: `str[records]`.
      first: position of each key's first member, and the number of members: `int64[records + 1]`.
      extensions: what follows that dot, in lower case: `str[members]`.
      offsets: where each member's content starts in the file: `int64[members]`.
      sizes: how long it is: `int64[members]`.
    """

    keys: np.ndarray
    first: np.ndarray
    extensions: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray

    def members(self, record: int) -> Iterator[tuple[str, int, int]]:
        """Extension, offset and size of each member of a record."""
        for member in range(self.first[record], self.first[record + 1]):
            yield str(self.extensions[member]), int(self.offsets[member]), int(self.sizes[member])


def split_name(name: str) -> tuple[str, str]:
    """Key and extension of a member.

    >>> split_name("animals/0001.seg.PNG")
    ('animals/0001', 'seg.png')
    """
    folder, _, base = name.rpartition("/")
    key, _, extension = base.partition(".")
    return f"{folder}/{key}" if folder else key, extension.lower()


def scan(shard: Path) -> TarIndex:
    """Reads the headers of a shard, and none of its contents.

    Raises:
      ValueError: the shard is compressed, cut short or no tar; a name comes twice; a member is a link.
    """
    records: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                if member.isdir():
                    continue
                if not member.isreg():
                    raise ValueError(f"{shard}: {member.name} is a link; write the tar with --dereference")
                key, extension = split_name(member.name.removeprefix("./"))
                members = records.setdefault(key, {})
                if extension in members:
                    raise ValueError(f"{shard}: {member.name} comes twice, as key {key!r} with {extension!r}")
                members[extension] = (member.offset_data, member.size)
            end = tar.offset
    except tarfile.TarError as error:
        fix = "decompress it, for random access, or fetch it again"
        raise ValueError(f"{shard} is no plain tar ({error}); {fix}") from error
    if not records:
        raise ValueError(f"{shard} holds no files")
    size = shard.stat().st_size
    with shard.open("rb") as file:
        file.seek(end)
        # tarfile takes a damaged header for the end of the archive; after the true end there are only zeros.
        if end > size or file.read(2**20).strip(b"\0"):
            raise ValueError(f"{shard} is damaged at byte {min(end, size)} of {size}; fetch it again")
    members = [(extension, *place) for group in records.values() for extension, place in group.items()]
    extensions, offsets, sizes = zip(*members, strict=True)
    first = np.cumsum([0, *map(len, records.values())])
    return TarIndex(np.array(list(records)), first, np.array(extensions), np.array(offsets), np.array(sizes))


def cached_scan(shard: Path, folder: Path | None) -> TarIndex:
    """`scan`, or its result kept in `folder` where the shard has not changed since.

    Args:
      shard: the tar.
      folder: where indices are kept, as `<shard>.index.npz`; None keeps none.
    """
    if folder is None:
        return scan(shard)
    status = shard.stat()
    stamp = np.array([str(shard.absolute()), str(status.st_size), str(status.st_mtime_ns)])
    file = folder / f"{shard.name}.index.npz"
    if file.is_file():
        with np.load(file, allow_pickle=False) as kept:
            if np.array_equal(kept["stamp"], stamp):
                return TarIndex(*(kept[field] for field in TarIndex._fields))
    index = scan(shard)
    folder.mkdir(parents=True, exist_ok=True)
    # Renamed into place: several processes may open the same shards at once.
    partial = file.with_name(f".{os.getpid()}.{file.name}")
    np.savez(partial, stamp=stamp, **index._asdict())
    partial.rename(file)
    return index
