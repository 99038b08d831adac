"""An index of the lines of a text file: any line by one seek, whatever the size of the file."""

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

_BLOCK = 2**23
_NEWLINE, _QUOTE = 10, 34


class LineIndex:
    """Where each line of a file starts and ends; 24 bytes a line, blank lines left out.

    Args:
      path: the file.
      quoted: whether a newline between double quotes belongs to the line, as in CSV.

    Attributes:
      numbers: the number of each line in the file, from 1: `int64[lines]`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a double quote never closes.
    """

    def __init__(self, path: Path, *, quoted: bool = False):
        if not path.is_file():
            raise FileNotFoundError(f"{path} not found (looked from {Path.cwd()})")
        self.path = path
        ends, open_quote = _scan(path, quoted)
        closed = np.flatnonzero(~open_quote)
        if len(ends) and open_quote[-1]:
            first = closed[-1] + 2 if len(closed) else 1
            raise ValueError(f"{path} line {first}: a double quote never closes; double it to mean itself")
        first_line = np.concatenate([[0], closed[:-1] + 1])[: len(closed)]
        starts = np.concatenate([[0], ends + 1])[first_line]
        ends = ends[closed]
        with path.open("rb") as file:
            short = np.flatnonzero(ends - starts <= 1)
            blank = [i for i in short if not _bytes(file, starts[i], ends[i]).strip()]
        self._starts, self._ends, self.numbers = (np.delete(a, blank) for a in (starts, ends, first_line + 1))

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> bytes:
        """The line at `index`, without its newline."""
        # Opened for each line, about 10 microseconds: nothing to close, to pickle or to share among threads.
        with self.path.open("rb") as file:
            return _bytes(file, self._starts[index], self._ends[index]).rstrip(b"\r")


def _scan(path: Path, quoted: bool) -> tuple[np.ndarray, np.ndarray]:
    """Position of each newline (and of the end of a last line without one); whether a quote is open there."""
    ends, quotes_before = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    position = quotes = 0
    last = _NEWLINE
    with path.open("rb") as file:
        while data := file.read(_BLOCK):
            block = np.frombuffer(data, np.uint8)
            newlines = np.flatnonzero(block == _NEWLINE)
            ends.append(newlines + position)
            if quoted:
                marks = np.flatnonzero(block == _QUOTE)
                quotes_before.append(np.searchsorted(marks, newlines) + quotes)
                quotes += len(marks)
            position += len(data)
            last = data[-1]
    if last != _NEWLINE:
        ends.append(np.array([position]))
        quotes_before.append(np.array([quotes]))
    found = np.concatenate(ends)
    return found, np.concatenate(quotes_before) % 2 == 1 if quoted else np.zeros(len(found), bool)


def _bytes(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start, os.SEEK_SET)
    return file.read(end - start)
