"""Which descriptions are for training, and which are kept for evaluation."""

import numpy as np

from mmjax.data.shapes.descriptions import Descriptions
from mmjax.data.shapes.vocabulary import COLOURS, SHAPES, Vocabulary

SPLITS: tuple[str, ...] = ("train", "validation", "test")
HOLDOUTS: tuple[str, ...] = ("captions", "combinations")


def split_of(descriptions: Descriptions, vocabulary: Vocabulary, *, holdout: str = "captions") -> np.ndarray:
    """The split of each description; it depends on the words alone, never on a seed.

    `captions` keeps a random tenth of the descriptions for `validation` and another for `test`, so training
    sees every combination of colour and shape. `combinations` keeps every description that shows one of some
    combinations, for each shape one colour in `test` and another in `validation`: training never sees an
    orange heart, but orange things and hearts.

    Args:
      descriptions: what to split.
      vocabulary: the words that they index.
      holdout: `captions` or `combinations`.

    Returns:
      `[K]` int, indices into `SPLITS`.
    """
    if holdout == "captions":
        # The lowest bit of the hash has already chosen the canonical form.
        return np.array([2, 1] + [0] * 8)[(descriptions.hashes >> 1) % 10]
    places = [list(COLOURS).index(t.colour) + SHAPES.index(t.shape) for t in vocabulary.things]
    kept = np.array([2, 1] + [0] * (len(COLOURS) - 2))[np.array(places) % len(COLOURS)]
    return np.maximum(kept[descriptions.rows["first"]], kept[descriptions.rows["second"]])
