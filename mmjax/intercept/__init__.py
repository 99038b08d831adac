"""Transformations of a model's `apply`: `tap` reads values inside it, `edit` replaces them, `insert` adds branches.

A model is written once and knows nothing of what is done to it. `apply` is any function that calls Flax Linen modules,
`model.apply` or a closure over it. The transformations nest in any order; `jax.jit`, `grad`, `vmap` and `checkpoint` go
around the result.
"""

from mmjax.intercept.call import Call
from mmjax.intercept.editing import edit
from mmjax.intercept.insertion import insert
from mmjax.intercept.survey import ModuleInfo, Target, find_targets, match_report, module_paths
from mmjax.intercept.tapping import tap
from mmjax.intercept.within import within

__all__ = [
    "Call",
    "ModuleInfo",
    "Target",
    "edit",
    "find_targets",
    "insert",
    "match_report",
    "module_paths",
    "tap",
    "within",
]
