"""BitFit: biases train, the rest is frozen."""

from typing import Any

from mmjax.paths import flatten, unflatten
from mmjax.peft.adapter import Adapter, Params
from mmjax.peft.overlay import overlay


def bitfit_mask(params: Params, *, extra: str = "") -> dict[str, Any]:
    """Which leaves train: those named `bias`, and those whose path contains one of the extra words.

    Args:
      params: nested dict of parameters.
      extra: words joined by commas, such as "head".

    Returns:
      A tree of bool.

    >>> bitfit_mask({"head": {"kernel": 1.0, "bias": 2.0}, "scale": 3.0})
    {'head': {'kernel': False, 'bias': True}, 'scale': False}

    Reference:
      Ben Zaken et al., "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked Language-models",
      ACL 2022.
    """
    words = [word for word in extra.split(",") if word]
    return unflatten(
        {path: path.rpartition("/")[2] == "bias" or any(word in path for word in words) for path in flatten(params)}
    )


def bitfit(*, extra: str = "") -> Adapter:
    """Biases train, see `overlay`; so do leaves whose path contains one of the extra words.

    Args:
      extra: words joined by commas, such as "head".

    Returns:
      The adapter.

    Reference:
      Ben Zaken et al., "BitFit", ACL 2022.
    """

    def select(base: Params) -> list[str]:
        return [path for path, trains in flatten(bitfit_mask(base, extra=extra)).items() if trains]

    return overlay("bitfit", select)
