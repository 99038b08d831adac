"""Full fine-tuning."""

from mmjax.paths import flatten
from mmjax.peft.adapter import Adapter
from mmjax.peft.overlay import overlay


def full() -> Adapter:
    """All leaves train, see `overlay`."""
    return overlay("full", lambda base: list(flatten(base)))
