"""Function transformations of a model's `apply`: `tap` reads values inside it, `edit` replaces them.

A model is written once and knows nothing of what is done to it. `apply` is any function that calls Flax Linen modules,
`model.apply` or a closure over it. The transformations nest in any order; `jax.jit`, `grad`, `vmap` and `checkpoint` go
around the result.
"""

from mmjax.intercept.call import Call
from mmjax.intercept.editing import edit
from mmjax.intercept.survey import ModuleInfo, match_report, module_paths
from mmjax.intercept.tapping import tap

__all__ = ["Call", "ModuleInfo", "edit", "match_report", "module_paths", "tap"]
