"""A folder that appears whole or not at all."""

import contextlib
import tempfile
from collections.abc import Generator
from pathlib import Path


@contextlib.contextmanager
def new_folder(out: str | Path) -> Generator[Path]:
    """A folder to write into, which becomes `out` when the block ends well and vanishes when it raises.

    Args:
      out: the folder to make; it may not exist.

    Yields:
      The folder to write into, on the file system of `out`.

    Raises:
      FileExistsError: `out` exists.

    >>> with tempfile.TemporaryDirectory() as parent:
    ...     with new_folder(f"{parent}/out") as folder:
    ...         _ = (folder / "config.json").write_text("{}")
    ...     [path.name for path in Path(parent).glob("*/*")]
    ['config.json']
    """
    out = Path(out)
    if out.exists() or out.is_symlink():
        raise FileExistsError(f"{out} exists, and nothing is written over it: remove it or choose another folder")
    # The parents are made last, so that a failure leaves none of them behind.
    ancestor = next(parent for parent in out.absolute().parents if parent.exists())
    with tempfile.TemporaryDirectory(prefix=".mmjax-", dir=ancestor) as staging:
        folder = Path(staging, out.name)
        folder.mkdir()
        yield folder
        out.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(out)
