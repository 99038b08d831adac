"""The stream of training batches: deterministic, exact after a restart, equal for any number of workers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.data.bank import FeatureBank
from mmjax.data.batching import Batcher
from mmjax.data.buckets import check_buckets
from mmjax.data.examples import ExampleReader, probe
from mmjax.data.image_spec import ImageSpec
from mmjax.data.iterator import BatchIterator
from mmjax.data.order import make_order
from mmjax.data.plan import Plan
from mmjax.data.records import without_images
from mmjax.data.tokenizers import Tokenizer
from mmjax.data.transforms import TransformConfig, compose
from mmjax.data.views import check_banks


def train_batches(
    source: Any,
    *,
    batch_size: int,
    image: ImageSpec | None,
    tokenizer: Tokenizer | None,
    context_length: int = 77,
    seed: int = 0,
    features: Mapping[str, FeatureBank] | None = None,
    view_epochs: int | None = None,
    transforms: Sequence[TransformConfig] = (),
    caption_weights: Sequence[float] | None = None,
    shuffle: bool = True,
    epochs: int | None = None,
    remainder: str = "keep",
    buckets: Sequence[int] | None = None,
    group_by_length: bool = False,
    max_bad_share: float = 0.01,
    num_workers: int = 0,
    num_threads: int = 0,
    prefetch: int = 2,
    shard: tuple[int, int] = (0, 1),
) -> BatchIterator:
    """An iterator over batches of pictures and captions.

    Example `k` of the stream depends on (seed, epoch, index) alone. Order and contents are the same for any
    number of workers and threads, each record stands in each epoch exactly once, and a fresh iterator that is
    given a state goes on bit for bit.

    A record that cannot be read is skipped, logged with file and reason, and counted. The run stops when more
    than `max_bad_share` of an epoch's records so far were bad, which is looked at from 1,000 records on and
    at the epoch's end.

    Args:
      source: random access to records, `len(source)` and `source[index]`.
      batch_size: examples in a batch over all processes, `B` times the number of processes.
      image: preprocessing of the pictures; None leaves them out.
      tokenizer: of the captions; None leaves them out.
      context_length: most tokens of a text.
      seed: of order, transforms and choice of captions.
      features: banks of embeddings by name, each read as `<name>_features`. One named "image" stands in for the
        pictures, which are then not even decoded, one named "text" for the texts.
      view_epochs: epochs after which the random numbers of transforms and captions repeat, such as the number of
        epochs in a bank; None = never.
      transforms: random transforms, see `compose`.
      caption_weights: of a record's first, second, ... caption, see `choose_caption`; all alike by default.
      shuffle: whether each epoch has an order of its own.
      epochs: passes over the source; None never ends.
      remainder: of an epoch that the batch does not divide: "keep" goes on with the next epoch in the same
        batch (a short batch comes at the very end), "drop" leaves it out, "pad" fills up with examples whose
        `mask` is False; bad records are padding there too.
      buckets: ascending lengths up to `context_length`; a batch's texts are cut to the smallest that holds
        them, on all processes to the same.
      group_by_length: whether to bring texts of one bucket together. A batch is then not a random sample as
        to length, and since it is made by its texts, for a record that cannot be read another one of the batch
        stands in. So it does with buckets and several processes.
      max_bad_share: share of unreadable records at which the run stops, in [0, 1].
      num_workers: processes that read; 0 reads in a thread of this one.
      num_threads: threads that read, in each process; they help where reading waits for a disk or decodes
        large files.
      prefetch: batches to hold ready; 0 reads each when it is asked for.
      shard: number of this process, and how many there are.

    Returns:
      The iterator. A batch is a dict of `index` int64 `[B]` and, as far as they are read, `image` float32
      `[B, H, W, 3]`, `text` int32 `[B, T]`, `text_mask` bool `[B, T]`, `label` int32 `[B]`, `<name>_features`
      float32 `[B, D]`, and with "pad" `mask` bool `[B]`.

    Raises:
      ValueError: a setting is wrong or the source lacks a field; the message gives the fix.
      StaleBankError: a bank is of other records or views; from the iterator too.
      TooManyBadRecordsError: from the iterator.

    >>> import mmjax.data
    >>> source = [{"captions": ["a cat"], "label": 0}, {"captions": ["a dog"], "label": 1}]
    >>> tokenizer = mmjax.data.train_bpe(["a cat", "a dog"], vocab_size=300)
    >>> with train_batches(source, batch_size=2, image=None, tokenizer=tokenizer, context_length=8, seed=0) as batches:
    ...     sorted(next(batches)["index"].tolist())
    [0, 1]
    """
    if not 0 <= max_bad_share <= 1:
        raise ValueError(f"max_bad_share is {max_bad_share}, expected a share in [0, 1]")
    for name, number in (("num_workers", num_workers), ("num_threads", num_threads), ("prefetch", prefetch)):
        if number < 0:
            raise ValueError(f"{name} is {number}, expected 0 or more")
    if view_epochs is not None and view_epochs < 1:
        raise ValueError(f"view_epochs is {view_epochs}, expected 1 or more, or None")
    if caption_weights is not None and not (
        len(caption_weights) and caption_weights[0] > 0 and min(caption_weights) >= 0
    ):
        raise ValueError(f"caption_weights are {caption_weights}, expected the first to be positive and none negative")
    lengths = check_buckets(buckets, context_length=context_length)
    order = make_order(len(source), batch_size=batch_size, seed=seed, shuffle=shuffle, remainder=remainder, shard=shard)
    banks = dict(features or {})
    check_banks(
        banks,
        records=len(source),
        epochs=view_epochs or epochs,
        image=image,
        transforms=transforms,
        tokenizer=tokenizer,
        context_length=context_length,
        caption_weights=caption_weights,
        seed=seed,
    )
    if "image" in banks:
        # Without its picture a record still has to have something: its captions.
        source, image = without_images(source) if tokenizer else source, None
    if "text" in banks:
        tokenizer = None
    fields = probe(source, image=image is not None, captions=tokenizer is not None)
    reader = ExampleReader(
        source=source,
        order=order,
        augment=compose(transforms, image) if image else None,
        tokenizer=tokenizer,
        context_length=context_length,
        caption_weights=caption_weights,
        labels="label" in fields,
        banks=banks,
        view_epochs=view_epochs,
    )
    plan = None
    if tokenizer and len(lengths) > 1 and (group_by_length or shard[1] > 1):
        reader = reader._replace(order=order._replace(process=0, processes=1))
        plan = Plan(
            reader._replace(source=without_images(source), augment=None, labels=False, banks={}, strict=True),
            batch_size=batch_size,
            shard=shard,
            stop=reader.order.positions(epochs),
            lengths=lengths,
            grouped=group_by_length,
            # Texts of all processes are read, and pictures of this one, which take 20 to 100 times as long.
            num_workers=math.ceil(num_workers * shard[1] / 32) if image else num_workers,
            num_threads=num_threads,
        )
    batcher = Batcher(
        reader,
        batch_size=batch_size // shard[1],
        stop=order.positions(epochs),
        remainder=remainder,
        lengths=lengths,
        plan=plan,
        max_bad_share=max_bad_share,
        num_workers=num_workers,
        num_threads=num_threads,
    )
    stream = {
        "records": len(source),
        "batch_size": batch_size,
        "seed": seed,
        "shuffle": shuffle,
        "remainder": remainder,
        "shard": list(shard),
        "buckets": list(buckets) if buckets and group_by_length else None,
        "view_epochs": view_epochs,
    }
    return BatchIterator(batcher, prefetch=prefetch, stream=stream)
