"""What a file of `formats/` says about its format."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmjax.convert.bundle import TOWERS, Bundle, parameter_shapes, unroll_layers
from mmjax.convert.errors import ConversionError
from mmjax.convert.network import Network
from mmjax.convert.parity import Report
from mmjax.convert.rules import Rule, to_foreign, to_params
from mmjax.convert.source import Source
from mmjax.convert.verifying import verify_network
from mmjax.models import DualEncoder


class Format(NamedTuple):
    """A format of PyTorch checkpoints, in both directions.

    Attributes:
      name: for messages and reports, such as "HF CLIP".
      detect: whether a source is of this format.
      read: everything of a source but its parameters, for which the bundle has {}.
      rules: the table for a model.
      obstacles: every reason why the format would compute something else than a bundle of its towers.
      write: config, weights, tokenizer and preprocessing of a bundle and its tensors into a folder.
      load: the PyTorch implementation.
      towers: those that it holds.
      ignore: globs over names of tensors that hold no parameter, or none of these towers.
      tensors: those of a source, by the names of the table.
    """

    name: str
    detect: Callable[[Source], bool]
    read: Callable[[Source], Bundle]
    rules: Callable[[DualEncoder], Sequence[Rule]]
    obstacles: Callable[[Bundle], list[str]]
    write: Callable[[Path, Bundle, Mapping[str, np.ndarray]], None]
    load: Callable[[Source], Network]
    towers: tuple[str, ...] = TOWERS
    ignore: tuple[str, ...] = ()
    tensors: Callable[[Source], Mapping[str, np.ndarray]] = lambda source: source.tensors

    def save(self, folder: Path, bundle: Bundle) -> None:
        """Writes a bundle without obstacles into a folder.

        Raises:
          ConversionError: the parameters do not fit the model; all reasons are listed.
        """
        bundle = unroll_layers(bundle)
        tensors = to_foreign(bundle.params, self.rules(bundle.model), expected=parameter_shapes(bundle))
        self.write(folder, bundle, tensors)

    def open(self, source: Source) -> Bundle:
        """The bundle of a source.

        Raises:
          ConversionError: the source lacks something, its files disagree, or its tensors do not fit; all reasons of
            the kind are listed.
        """
        bundle = self.read(source)
        problems, rules, shapes = self.obstacles(bundle), self.rules(bundle.model), parameter_shapes(bundle)
        params: Mapping[str, Any] = {}
        try:
            params = to_params(self.tensors(source), rules, expected=shapes, ignore=self.ignore)
        except ConversionError as error:
            problems += error.problems
        if problems:
            raise ConversionError(f"{source.path} cannot be read as {self.name}", problems)
        return bundle._replace(params=params)

    def verify(self, source: Source, bundle: Bundle) -> Report:
        """Compares a source, as its own implementation loads it, with the bundle it came from or became."""
        return verify_network(self.name, self.load(source), bundle)


class Program(NamedTuple):
    """A format that holds the computation itself; it is written, and not read back.

    Attributes:
      name: for messages and reports.
      obstacles: every reason why a bundle cannot be written.
      save: writes a bundle without obstacles into a folder.
      verify: runs the programs of a folder beside the bundle.
      towers: those that it must have; () = those that the model has.
    """

    name: str
    obstacles: Callable[[Bundle], list[str]]
    save: Callable[[Path, Bundle], None]
    verify: Callable[[Source, Bundle], Report]
    towers: tuple[str, ...] = ()
