"""Metrics: arrays in, measures out."""

from mmjax.metrics.calibration import expected_calibration_error
from mmjax.metrics.chunked_retrieval import chunked_recall_fraction_at_k, chunked_retrieval_ranks
from mmjax.metrics.classification import topk_accuracy
from mmjax.metrics.geometry import alignment, effective_rank, modality_gap, uniformity
from mmjax.metrics.retrieval import recall_at_k, recall_fraction_at_k, retrieval_ranks, retrieval_report

__all__ = [
    "alignment",
    "chunked_recall_fraction_at_k",
    "chunked_retrieval_ranks",
    "effective_rank",
    "expected_calibration_error",
    "modality_gap",
    "recall_at_k",
    "recall_fraction_at_k",
    "retrieval_ranks",
    "retrieval_report",
    "topk_accuracy",
    "uniformity",
]
