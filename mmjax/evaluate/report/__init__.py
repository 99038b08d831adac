"""The report of a run: one HTML file that holds its pictures, its figures and its config, and loads nothing."""

from mmjax.evaluate.pairs import embed_pairs
from mmjax.evaluate.report.curves import evaluation_panels, training_panels
from mmjax.evaluate.report.gallery import gallery
from mmjax.evaluate.report.held_out import HeldOut, held_out
from mmjax.evaluate.report.plane import joint_projection, plane
from mmjax.evaluate.report.similarity import similarity_heatmap
from mmjax.evaluate.report.write import write_report

__all__ = [
    "HeldOut",
    "embed_pairs",
    "evaluation_panels",
    "gallery",
    "held_out",
    "joint_projection",
    "plane",
    "similarity_heatmap",
    "training_panels",
    "write_report",
]
