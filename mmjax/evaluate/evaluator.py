"""`Evaluator`: a protocol with its data, ready to be run on any parameters."""

import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from mmjax import registry
from mmjax.config import call
from mmjax.evaluate.embed import Encoders
from mmjax.method import Params


class Evaluator(NamedTuple):
    """What an evaluation needs beside parameters.

    Attributes:
      name: its key in the config.
      run: `params -> (name, value)...`.
      every: steps of training between two runs; 0 runs it after the last step only.
    """

    name: str
    run: Callable[[Params], Iterator[tuple[str, float]]]
    every: int = 0


def build_evaluators(evals: Mapping[str, Any], encoders: Encoders) -> list[Evaluator]:
    """The evaluators of a config section, `{name: {"kind": file in mmjax/evaluate/protocols, "every": steps, ...}}`.

    Args:
      evals: the section; what `kind` and `every` leave is passed to the protocol's `build`.
      encoders: of the model under evaluation.

    Raises:
      ConfigError: an unknown kind or setting.
    """
    return [_build(name, dict(settings), encoders) for name, settings in evals.items()]


def run_evaluators(evaluators: Iterable[Evaluator], params: Params) -> Iterator[tuple[str, float]]:
    """All values, each named `<evaluator>/<value>`; a value that begins with the evaluator's name keeps it as it is."""
    for evaluator in evaluators:
        for name, value in evaluator.run(params):
            own = name.startswith(f"{evaluator.name}/")
            yield name if own else f"{evaluator.name}/{name}", value


def _build(name: str, settings: dict[str, Any], encoders: Encoders) -> Evaluator:
    kind, every = settings.pop("kind", name), settings.pop("every", 0)
    protocol = registry.find("mmjax.evaluate.protocols", kind)
    return Evaluator(name, call(protocol.build, settings, encoders), every)


def write_results(path: pathlib.Path, results: Mapping[str, float]) -> None:
    """Writes `results` as one flat JSON object, whole or not at all."""
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(dict(results), indent=2) + "\n", encoding="utf-8")
    fresh.replace(path)


def results_table(results: Mapping[str, float]) -> str:
    """Names and values in two columns; counts as integers.

    >>> print(results_table({"retrieval/text_to_image/R@1": 0.5, "step": 200}))
    retrieval/text_to_image/R@1  0.5000
    step                            200
    """
    shown = {name: str(value) if isinstance(value, int) else f"{value:.4f}" for name, value in results.items()}
    name_width, width = (max(map(len, column), default=0) for column in (shown, shown.values()))
    return "\n".join(f"{name:{name_width}s}  {text:>{width}s}" for name, text in shown.items())
