"""Opens a downloaded package: a folder as it is, an archive unpacked to a temporary folder, never outside of it."""

import contextlib
import io
import lzma
import os
import tarfile
import tempfile
import zlib
from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def unpacked(source: str | os.PathLike[str]) -> Generator[Path, None, None]:
    """The folder that `source` is or holds.

    Args:
      source: a folder, a tar (`.tgz`, `.tar.xz`, ...) or a Debian package (`.deb`).

    Raises:
      FileNotFoundError: there is no such file or folder.
      ValueError: the file is no such archive, or a member of it would land outside of the folder.
    """
    source = Path(source)
    if source.is_dir():
        yield source
        return
    if not source.is_file():
        raise FileNotFoundError(f"{source} not found (looked from {Path.cwd()})")
    with tempfile.TemporaryDirectory(prefix="mmjax-") as folder:
        try:
            with source.open("rb") as file:
                data = _debian_data(file) if file.read(8) == b"!<arch>\n" else file
                data.seek(0)
                with tarfile.open(fileobj=data, mode="r:*") as tar:
                    tar.extractall(folder, filter="data")
                    # The checksum of gzip and xz comes after the end of the tar.
                    while tar.fileobj is not None and tar.fileobj.read(2**20):
                        pass
        except (tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error) as error:
            fix = "expected a folder, a tar or a .deb; unpack it yourself and give the folder"
            raise ValueError(f"cannot unpack {source} ({str(error).splitlines()[0]}); {fix}") from error
        yield Path(folder)


def find_root(folder: Path, name: str, *inside: str, source: str | os.PathLike[str]) -> Path:
    """`folder`, or the first of its subfolders `inside`, that holds `name`.

    Args:
      folder: where to look.
      name: path of a file or folder.
      *inside: other places to look from, relative to `folder`.
      source: what was unpacked there, for the message.

    Raises:
      FileNotFoundError: none of them does.
    """
    for root in (folder, *(folder / part for part in inside)):
        if (root / name).exists():
            return root
    raise FileNotFoundError(f"{os.fspath(source)} has no {name}{''.join(f', nor {part}/{name}' for part in inside)}")


def _debian_data(file: BinaryIO) -> BinaryIO:
    """The member `data.tar.*` of a Debian package, which is an `ar` archive; `file` stands after its first 8 bytes."""
    while len(header := file.read(60)) == 60:
        name, size = header[:16].decode("ascii", "replace").strip(), int(header[48:58])
        if name.startswith("data.tar"):
            return io.BytesIO(file.read(size))
        file.seek(size + size % 2, os.SEEK_CUR)
    raise tarfile.ReadError("no data.tar in the package")
