"""Batches for evaluation: once through, in order, all of one size, the last one padded; pictures and captions apart."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mmjax.data.batching import Batch, Batcher
from mmjax.data.examples import ExampleReader, probe
from mmjax.data.image_spec import ImageSpec
from mmjax.data.order import PADDING, make_order
from mmjax.data.tokenizers import Tokenizer
from mmjax.data.transforms import compose


def image_batches(
    source: Any,
    *,
    batch_size: int,
    image: ImageSpec,
    max_records: int | None = None,
    max_bad_share: float = 0.01,
) -> Iterator[Batch]:
    """The source's pictures in order.

    Args:
      source: random access to records.
      batch_size: `B`.
      image: preprocessing.
      max_records: the first records only.
      max_bad_share: share of unreadable records at which it stops, see `train_batches`.

    Yields:
      `image` float32 `[B, H, W, 3]`, `index` int64 `[B]` (position in the source; -1 for padding), `label`
      int32 `[B]` if the source has labels, and `mask` bool `[B]`, False for padding and for records that
      cannot be read.

    >>> source = [{"image": np.zeros((2, 2, 3), np.uint8)}] * 3
    >>> [batch["index"].tolist() for batch in image_batches(source, batch_size=2, image=ImageSpec(2))]
    [[0, 1], [2, -1]]
    """
    records = len(source) if max_records is None else min(max_records, len(source))
    order = make_order(records, batch_size=batch_size, seed=0, shuffle=False, remainder="pad", shard=(0, 1))
    fields = probe(source, image=True, captions=False)
    reader = ExampleReader(
        source=source,
        order=order,
        augment=compose((), image),
        tokenizer=None,
        context_length=0,
        caption_weights=None,
        labels="label" in fields,
    )
    batcher = Batcher(
        reader, batch_size=batch_size, stop=order.positions(1), remainder="pad", max_bad_share=max_bad_share
    )
    try:
        yield from iter(batcher)
    finally:
        batcher.close()


def caption_batches(
    texts: Sequence[str], *, batch_size: int, tokenizer: Tokenizer, context_length: int
) -> Iterator[Batch]:
    """Texts in order.

    Args:
      texts: any number.
      batch_size: `B`.
      tokenizer: of the texts.
      context_length: `T`.

    Yields:
      `text` int32 `[B, T]`, `text_mask` bool `[B, T]`, `index` int64 `[B]` (position in `texts`; -1 for
      padding) and `mask` bool `[B]`, False for padding.
    """
    for start in range(0, len(texts), batch_size):
        part = list(texts[start : start + batch_size])
        missing = batch_size - len(part)
        ids, present = tokenizer.encode(part + [""] * missing, length=context_length)
        index = np.full(batch_size, PADDING, np.int64)
        index[: len(part)] = range(start, start + len(part))
        yield {"text": ids, "text_mask": present, "index": index, "mask": index != PADDING}
