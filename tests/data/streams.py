"""A small source and what is read of it, for the tests of streams."""

import numpy as np

from mmjax.data import ImageSpec, train_batches, train_bpe

TOKENIZER = train_bpe(["one two three four five six seven eight nine"] * 2, vocab_size=300)
SPEC = ImageSpec(4)
RECORDS = 100
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def record(index, *, captions=2):
    pixels = np.random.default_rng(index).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    texts = [" ".join(WORDS[: (index * 7 + c) % 9 + 1]) for c in range(captions)]
    return {"image": pixels, "captions": texts, "label": index % 3}


SOURCE = [record(index) for index in range(RECORDS)]
TRANSFORMS = (("random_resized_crop", {"scale": (0.5, 1.0)}), "flip")


def stream(source=SOURCE, **settings):
    defaults = {"batch_size": 16, "image": SPEC, "tokenizer": TOKENIZER, "context_length": 16, "seed": 1}
    return train_batches(source, **{**defaults, **settings})


def take(count=None, **settings):
    with stream(**settings) as batches:
        return [next(batches) for _ in range(count)] if count else list(batches)


def indices(batches):
    return np.concatenate([batch["index"] for batch in batches])


def assert_equal_batches(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)
            assert one[name].dtype == other[name].dtype


def with_bad(*bad):
    """The source with records that are no pictures."""
    return [{**record(i), "image": b"no picture"} if i in bad else SOURCE[i] for i in range(RECORDS)]


GROUPED = {"buckets": (5, 9, 16), "group_by_length": True}
