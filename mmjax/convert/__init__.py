"""Checkpoints to and from other frameworks, by tables of rules that are read in both directions."""

from mmjax.convert.extras import MissingExtraError
from mmjax.convert.folder import new_folder
from mmjax.convert.formats import hf_clip
from mmjax.convert.parity import Report, Row, compare
from mmjax.convert.rules import (
    CONV,
    DENSE,
    IDENTITY,
    ConversionError,
    Rule,
    Transform,
    dense,
    layer_norm,
    to_foreign,
    to_params,
)

__all__ = [
    "CONV",
    "DENSE",
    "IDENTITY",
    "ConversionError",
    "MissingExtraError",
    "Report",
    "Row",
    "Rule",
    "Transform",
    "compare",
    "dense",
    "hf_clip",
    "layer_norm",
    "new_folder",
    "to_foreign",
    "to_params",
]
