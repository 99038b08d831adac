"""Where in a tower a parameter sits, from its path: stem, block, final norm or head."""

import re

STEM = (
    "patch_embed",
    "class_embedding",
    "register_embedding",
    "position_embedding",
    "token_embedding",
    "ln_pre",
)
FINAL_NORM = ("ln_post", "ln_final")
HEAD = ("attn_pool", "proj")

BLOCK = re.compile(r"encoder/block_(\d+)/")
STACKED = re.compile(r"encoder/blocks/")


def num_blocks(paths: list[str]) -> int:
    """Number of blocks in a tower, from the paths of its parameters."""
    return 1 + max((int(found[1]) for path in paths if (found := BLOCK.match(path))), default=-1)


def depth(path: str, num_layers: int) -> int | None:
    """0 for the stem, i + 1 for block i, L + 1 for the final norm, L + 2 for the head, else None.

    >>> [depth(path, 12) for path in ("ln_pre/bias", "encoder/block_3/ln_1/bias", "ln_post/bias", "proj")]
    [0, 4, 13, 14]
    """
    if found := BLOCK.match(path):
        return int(found[1]) + 1
    name = path.split("/")[0]
    for names, value in ((STEM, 0), (FINAL_NORM, num_layers + 1), (HEAD, num_layers + 2)):
        if name in names:
            return value
    return None
