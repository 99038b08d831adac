"""The error that lists all that is wrong, and how readers of several files come to one list."""

from collections.abc import Callable, Sequence
from typing import Any


class ConversionError(ValueError):
    """A model, checkpoint or folder cannot be converted.

    Attributes:
      problems: every problem found, one a line of the message.
    """

    def __init__(self, summary: str, problems: Sequence[str]):
        self.problems = tuple(problems)
        super().__init__("\n  - ".join([f"{summary}:", *problems]))


def read_all(summary: str, **readers: Callable[[], Any]) -> dict[str, Any]:
    """What each reader returns, by its name.

    Args:
      summary: first line of the error.
      **readers: called without arguments, in their order, all of them.

    Raises:
      ConversionError: at least one of them raised a ConversionError; the problems of all are listed.

    >>> read_all("cannot read x", image=lambda: 3, text=lambda: 4)
    {'image': 3, 'text': 4}
    """
    results, problems = {}, []
    for name, reader in readers.items():
        try:
            results[name] = reader()
        except ConversionError as error:
            problems += error.problems
    if problems:
        raise ConversionError(summary, problems)
    return results
