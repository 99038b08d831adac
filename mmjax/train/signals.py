"""SIGTERM as a wish to stop: the loop saves and leaves at the next step."""

import signal
from types import FrameType


class StopSignal:
    """Whether SIGTERM arrived since the `with` block began; the former handler returns after it."""

    def __init__(self) -> None:
        self.received = False

    def __enter__(self) -> "StopSignal":
        self._former = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._former)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.received = True
