"""What an adapter will do to a model, before anything is computed."""

import math
import re
from typing import Any, NamedTuple

import jax

from mmjax.intercept import match_report, module_paths
from mmjax.paths import MatchReport, flatten
from mmjax.peft.adapter import Adapter, Apply, Params, base_of

_KERNELS = ("/kernel", "/embedding")
_CHAINED = re.compile(r"(^|/)\d+_[^/]+(?=/)")


class AdapterReport(NamedTuple):
    """What an adapter acts on.

    Attributes:
      name: of the adapter.
      matches: addresses that each of its patterns matches; empty for one that only replaces leaves.
      leaves: path of each of its parameters -> shape.
      kernels: number of kernels and embeddings of the model, layers counted one by one.
      adapted: number of them that it acts on.
      parameters: number of scalars of the model.
    """

    name: str
    matches: MatchReport
    leaves: dict[str, tuple[int, ...]]
    kernels: int
    adapted: int
    parameters: int

    @property
    def own_parameters(self) -> int:
        """Number of scalars of the adapter."""
        return sum(math.prod(shape) for shape in self.leaves.values())

    def __str__(self) -> str:
        share, part = self.adapted / max(self.kernels, 1), self.own_parameters / max(self.parameters, 1)
        return "\n".join(
            [
                f"adapter {self.name}: {self.own_parameters:,d} parameters in {len(self.leaves)} leaves, "
                f"{part:.2%} of the model's {self.parameters:,d}; {self.adapted} of {self.kernels} kernels adapted "
                f"({share:.0%})",
                *([str(self.matches)] if self.matches.matches else []),
            ]
        )


def describe_adapter(adapter: Adapter, apply: Apply, params: Params, *example: Any, **kwargs: Any) -> AdapterReport:
    """What the adapter acts on in `apply(params, *example, **kwargs)`; nothing is computed.

    Args:
      adapter: to describe.
      apply, params, *example, **kwargs: as for its `init`; arrays may be `jax.ShapeDtypeStruct`.

    Returns:
      The report; print it for a table.

    Raises:
      NoMatchError, ValueError: as `adapter.init`, and where it has no parameters at all.

    >>> from mmjax.models import TextTransformer
    >>> from mmjax.peft import lora
    >>> model = TextTransformer(vocab_size=7, context_length=4, width=8, num_layers=2, num_heads=2, output_dim=3)
    >>> ids = jax.ShapeDtypeStruct((1, 4), "int32")
    >>> shapes = jax.eval_shape(model.init, jax.random.key(0), ids)
    >>> print(describe_adapter(lora(rank=2), model.apply, shapes, ids))
    adapter lora: 128 parameters in 8 leaves, 6.84% of the model's 1,872; 4 of 14 kernels adapted (29%)
    4 of 34 paths matched
           4  **/block*/attn/{query,value}  e.g. encoder/block_0/attn/query
    """
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    tree = jax.eval_shape(lambda params: adapter.init(jax.random.key(0), apply, params, *example, **kwargs), shapes)
    leaves = {path: tuple(leaf.shape) for path, leaf in flatten(tree).items()}
    if not leaves:
        raise ValueError(f"{adapter.name}: nothing trains, the adapter has no parameters")
    matches = MatchReport({}, 0)
    if adapter.patterns:
        matches = match_report(apply, adapter.patterns, params, *example, **kwargs)
    stacks = {path: info.stack for path, info in module_paths(apply, params, *example, **kwargs).items()}
    flat = flatten(base_of(params))
    modules = [path.rpartition("/")[0] for path in flat if path.endswith(_KERNELS)]
    count = {path: math.prod(stacks.get(path) or ()) for path in modules}
    own = [_CHAINED.sub("", f"/{path}").lstrip("/") for path in leaves]
    sites = {path.rpartition("/")[0] for path in own if path not in flat or path.endswith(_KERNELS)}
    return AdapterReport(
        adapter.name,
        matches,
        leaves,
        kernels=sum(count.values()),
        adapted=sum(number for path, number in count.items() if path in sites),
        parameters=sum(math.prod(leaf.shape) for leaf in flat.values()),
    )
