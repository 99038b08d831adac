"""Export, import and verification of a bundle in any format.

The folders `formats` and `programs` are the registry: `hf_clip` is the value `FORMAT` of `formats/hf_clip.py`.
"""

from pathlib import Path
from typing import cast

from mmjax import registry
from mmjax.config import ConfigError
from mmjax.convert.bundle import Bundle, select_towers
from mmjax.convert.errors import ConversionError
from mmjax.convert.folder import new_folder
from mmjax.convert.format import Format, Program
from mmjax.convert.parity import Report
from mmjax.convert.source import Source
from mmjax.paths import suggestion

_FORMATS, _PROGRAMS = "mmjax.convert.formats", "mmjax.convert.programs"


def find_format(name: str) -> Format | Program:
    """The format of that name.

    Raises:
      ConfigError: there is none; the message lists near misses.
    """
    packages = {found: package for package in (_PROGRAMS, _FORMATS) for found in registry.names(package)}
    if name not in packages:
        raise ConfigError(f"no format {name!r}; {suggestion(name, packages)}")
    return registry.find(packages[name], name).FORMAT


def detect_format(source: str | Path | Source) -> str:
    """The name of the format that a folder or file of weights is of.

    Raises:
      ConversionError: it is of none, or of several.
    """
    source = _source(source)
    names = registry.names(_FORMATS)
    found = [name for name in names if cast(Format, find_format(name)).detect(source)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConversionError(f"several formats fit {source.path}", [f"{name}; choose by format=" for name in found])
    about = {key: source.config[key] for key in ("model_type", "architectures") if key in source.config}
    says = f"config.json says {about}" if about else "there is no config.json that says what it is"
    raise ConversionError(f"no format fits {source.path}", [f"{says}; known are {', '.join(names)}"])


def export_model(bundle: Bundle, out: str | Path, *, format: str, verify: bool = False) -> Report | None:
    """Writes a bundle in a format as the folder `out`. Needs no PyTorch, unless it verifies.

    A format of one tower takes that tower of a model which has both.

    Args:
      bundle: what to write.
      out: the folder to make; it may not exist.
      format: its name.
      verify: whether to compare the folder with the bundle, see `verify_model`; the report is then in the folder, as
        `parity.json` and `parity.md`.

    Returns:
      The report, when verified.

    Raises:
      ConfigError: there is no such format.
      ConversionError: the format cannot express the model, or the parameters do not fit it, or the implementations
        differ. All reasons are listed, and nothing is left behind.
      FileExistsError: `out` exists.
      MissingExtraError: `verify` without the packages that load the format.
    """
    target = find_format(format)
    if target.towers:
        bundle = select_towers(bundle, target.towers)
    if problems := target.obstacles(bundle):
        raise ConversionError(f"{target.name} cannot express this model", problems)
    with new_folder(out) as folder:
        target.save(folder, bundle)
        if not verify:
            return None
        report = target.verify(Source(folder), bundle)
        report.check()
        report.write(folder)
        return report


def import_model(source: str | Path | Source, *, format: str | None = None) -> Bundle:
    """Reads a folder or a file of weights, safetensors without PyTorch.

    Args:
      source: the folder or file.
      format: its name; None = what `detect_format` finds.

    Returns:
      Model, float32 parameters, tokenizer and preprocessing.

    Raises:
      ConfigError: there is no such format, or it cannot be read.
      ConversionError: a file is missing, a setting has no counterpart, the files disagree, or tensors do not fit; all
        reasons of the kind are listed.
    """
    source = _source(source)
    return _readable(source, format).open(source)


def verify_model(bundle: Bundle, source: str | Path | Source, *, format: str | None = None) -> Report:
    """Compares a folder or file, as its own implementation loads it, with the bundle it came from or became.

    Args:
      bundle: with our side of it.
      source: the folder or file.
      format: its name; None = what `detect_format` finds.

    Returns:
      The report, every row within its limit.

    Raises:
      ConversionError: something differs by more than 1e-4; the message lists all that does.
      MissingExtraError: a package that loads the format is not installed.
    """
    source = _source(source)
    target = _readable(source, format)
    report = target.verify(source, select_towers(bundle, target.towers))
    report.check()
    return report


def _source(source: str | Path | Source) -> Source:
    return source if isinstance(source, Source) else Source(Path(source))


def _readable(source: Source, name: str | None) -> Format:
    name = detect_format(source) if name is None else name
    found = find_format(name)
    if not isinstance(found, Format):
        raise ConfigError(
            f"{name} can be exported only; formats that can be read: {', '.join(registry.names(_FORMATS))}"
        )
    return found
