"""Layer-wise decay of the learning rate."""

import re
from collections.abc import Iterable

from mmjax.optim.depth import BLOCK, depth, num_blocks

_TOWER = re.compile(rf"(.*/|){BLOCK.pattern}")


def layer_rates(paths: Iterable[str], *, decay: float) -> dict[str, float]:
    """Multiples of the learning rate that shrink from a tower's output to its input.

    `decay^(L + 1 - depth)`, depth 0 for the stem, i + 1 for block i, L + 1 for what follows the blocks

    Args:
      paths: of parameters; a tower is what shares the prefix of `encoder/block_<i>/...`. Parameters outside
        towers keep 1.
      decay: in (0, 1].

    Returns:
      path -> multiple.

    Raises:
      ValueError: `decay` is out of its range, or there is no tower of separate blocks (scanned ones have one
        rate).

    >>> layer_rates(["ln_pre/scale", "encoder/block_0/ln_1/scale", "proj/kernel"], decay=0.5)
    {'ln_pre/scale': 0.25, 'encoder/block_0/ln_1/scale': 0.5, 'proj/kernel': 1.0}

    Reference: Clark et al., "ELECTRA", 2020, appendix A; depths as in Bao et al., "BEiT", 2022.
    """
    if not 0.0 < decay <= 1.0:
        raise ValueError(f"layer_decay is {decay}, expected above 0 and at most 1")
    paths = list(paths)
    prefixes = sorted({found[1] for path in paths if (found := _TOWER.match(path))}, key=len, reverse=True)
    if not prefixes:
        raise ValueError(
            "layer_decay: no path holds encoder/block_<i>/; build the towers with scan=False, or do without"
        )
    layers = {
        prefix: num_blocks([p.removeprefix(prefix) for p in paths if p.startswith(prefix)]) for prefix in prefixes
    }

    def rate(path: str) -> float:
        for prefix, count in layers.items():
            if path.startswith(prefix):
                place = depth(path.removeprefix(prefix), count)
                return 1.0 if place is None else decay ** max(count + 1 - place, 0)
        return 1.0

    return {path: rate(path) for path in paths}
