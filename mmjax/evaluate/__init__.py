"""Protocols that put a number on a model, and the running of them."""

from mmjax.evaluate.embed import Encoders, make_encoders
from mmjax.evaluate.evaluator import Evaluator, build_evaluators, results_table, run_evaluators, write_results

__all__ = [
    "Encoders",
    "Evaluator",
    "build_evaluators",
    "make_encoders",
    "results_table",
    "run_evaluators",
    "write_results",
]
