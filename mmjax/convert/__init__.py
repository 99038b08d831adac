"""Checkpoints to and from other frameworks, by tables of rules that are read in both directions."""

from mmjax.convert.bundle import Bundle, resize_pictures, select_towers, shorten_texts
from mmjax.convert.conversion import detect_format, export_model, find_format, import_model, verify_model
from mmjax.convert.errors import ConversionError
from mmjax.convert.extras import MissingExtraError
from mmjax.convert.folder import new_folder
from mmjax.convert.format import Format, Program
from mmjax.convert.layers import dense, layer_norm, layers, multihead_attention
from mmjax.convert.network import Network, Tower
from mmjax.convert.parity import Report, Row, compare
from mmjax.convert.rules import Rule, to_foreign, to_params
from mmjax.convert.source import Source
from mmjax.convert.transforms import CONV, DENSE, IDENTITY, Transform, leading, patch_dense

__all__ = [
    "CONV",
    "DENSE",
    "IDENTITY",
    "Bundle",
    "ConversionError",
    "Format",
    "MissingExtraError",
    "Network",
    "Program",
    "Report",
    "Row",
    "Rule",
    "Source",
    "Tower",
    "Transform",
    "compare",
    "dense",
    "detect_format",
    "export_model",
    "find_format",
    "import_model",
    "layer_norm",
    "layers",
    "leading",
    "multihead_attention",
    "new_folder",
    "patch_dense",
    "resize_pictures",
    "select_towers",
    "shorten_texts",
    "to_foreign",
    "to_params",
    "verify_model",
]
