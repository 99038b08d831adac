"""Locked towers: which groups of a tower's layers train."""

from collections.abc import Mapping
from typing import Any

from mmjax.optim.depth import FINAL_NORM, HEAD, STACKED, STEM, depth, num_blocks
from mmjax.optim.partition import Rule
from mmjax.paths import flatten, unflatten


def lock_tower(params: Mapping[str, Any], *, num_layers: int, unlocked_groups: int = 0) -> dict[str, Any]:
    """Which parameters of a tower train when all but its last groups are locked.

    Groups from input to output: the stem (embeddings of patches, tokens, positions, class and registers,
    `ln_pre`); each block, the last one together with the final norm; the head (`proj`, attention pool). What
    lies outside the towers, such as `log_scale`, is not concerned.

    Args:
      params: parameters of one tower.
      num_layers: its number of blocks L.
      unlocked_groups: how many of the L + 2 groups train, counted from the output; 0 locks the tower.

    Returns:
      A tree of bool like `params`, True = trains; `frozen_rules` makes it rules for `build_optimizer`.

    Raises:
      ValueError: L is not the tower's number of blocks, `unlocked_groups` is not in [0, L + 2], a parameter
        is in no group, or scanned blocks would have to be locked in part.

    >>> tower = {"encoder": {"block_0": {"w": 0}, "block_1": {"w": 0}}, "proj": 0}
    >>> lock_tower(tower, num_layers=2, unlocked_groups=2)
    {'encoder': {'block_0': {'w': False}, 'block_1': {'w': True}}, 'proj': True}

    Reference: Zhai et al., "LiT: Zero-Shot Transfer with Locked-image text Tuning", 2022;
    mlfoundations/open_clip at 89fb801, `VisionTransformer.lock`.
    """
    paths = list(flatten(params))
    num_groups = num_layers + 2
    if not 0 <= unlocked_groups <= num_groups:
        raise ValueError(f"lock_tower: unlocked_groups is {unlocked_groups}, expected 0 to {num_groups}")
    stacked = any(STACKED.match(path) for path in paths)
    if not stacked and num_blocks(paths) != num_layers:
        raise ValueError(f"lock_tower: num_layers is {num_layers}, but the tower has {num_blocks(paths)} blocks")
    if stacked and 1 < unlocked_groups < num_groups - 1:
        raise ValueError(
            f"lock_tower: scanned blocks train together, but unlocked_groups={unlocked_groups} cuts them; "
            f"unlock at most 1 or at least {num_groups - 1}, or build the tower with scan=False"
        )
    first = num_groups - unlocked_groups

    def trains(path: str) -> bool:
        if STACKED.match(path):
            return first <= 1
        place = depth(path, num_layers)
        if place is None:
            known = ", ".join((*STEM, "encoder/block_<i>", *FINAL_NORM, *HEAD))
            raise ValueError(f"lock_tower: {path!r} is no parameter of a tower, expected one of {known}")
        group = place if place <= num_layers else place - 1  # the final norm goes with the last block
        return group >= first

    return unflatten({path: trains(path) for path in paths})


def frozen_rules(trains: Mapping[str, Any], *, prefix: str = "") -> tuple[Rule, ...]:
    """A tree of bool as the fewest rules that freeze what is False in it; put them before the others.

    Args:
      trains: tree of bool, True = trains.
      prefix: path of that tree among all parameters, such as "image".

    >>> trains = {"ln_pre": {"scale": False, "bias": False}, "proj": {"kernel": True}}
    >>> frozen_rules(trains, prefix="image")
    (Rule(pattern='image/ln_pre/**', frozen=True, rate=1.0, weight_decay=None),)
    """
    if not any(flatten(trains).values()):
        return (Rule(f"{prefix}/**" if prefix else "**", frozen=True),)
    rules: list[Rule] = []
    for name, value in trains.items():
        path = f"{prefix}/{name}" if prefix else str(name)
        if isinstance(value, Mapping):
            rules += frozen_rules(value, prefix=path) if value else ()
        elif not value:
            rules.append(Rule(path, frozen=True))
    return tuple(rules)
