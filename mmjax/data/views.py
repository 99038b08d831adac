"""What a tower sees of every record in every epoch: the one description that a bank is written by and read against."""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from mmjax.data.bank import FeatureBank, StaleBankError
from mmjax.data.batching import Batch, Batcher
from mmjax.data.examples import ExampleReader, probe
from mmjax.data.image_spec import ImageSpec
from mmjax.data.order import make_order
from mmjax.data.tokenizers import Tokenizer
from mmjax.data.transforms import TransformConfig, compose


def describe_image_views(
    image: ImageSpec, *, transforms: Sequence[TransformConfig] = (), seed: int = 0
) -> tuple[dict[str, Any], dict[str, Any]]:
    """`preprocessing` and `views` of a bank of pictures; the seed counts where there are transforms.

    >>> describe_image_views(ImageSpec(32), transforms=["flip"], seed=3)[1]
    {'transforms': [['flip', {}]], 'seed': 3}
    """
    steps = [[step, {}] if isinstance(step, str) else list(step) for step in transforms]
    return image.to_dict(), {"transforms": steps, **({"seed": seed} if steps else {})}


def describe_text_views(
    tokenizer: Tokenizer,
    *,
    context_length: int,
    caption_weights: Sequence[float] | None = None,
    seed: int = 0,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """`preprocessing` and `views` of a bank of texts; the seed counts unless one caption is always taken."""
    digest = blake2b(tokenizer.backend.to_str().encode(), digest_size=16).hexdigest()
    weights = None if caption_weights is None else list(caption_weights)
    fixed = weights is not None and not any(weights[1:])
    views = {"caption_weights": weights, **({} if fixed else {"seed": seed})}
    return {"tokenizer": digest, "context_length": context_length}, views


def view_batches(
    source: Any,
    *,
    batch_size: int,
    epochs: int,
    image: ImageSpec | None = None,
    transforms: Sequence[TransformConfig] = (),
    tokenizer: Tokenizer | None = None,
    context_length: int = 77,
    caption_weights: Sequence[float] | None = None,
    seed: int = 0,
    max_bad_share: float = 0.01,
    num_workers: int = 0,
    num_threads: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> Iterator[tuple[int, Batch]]:
    """The inputs that `train_batches` of these settings makes in each epoch, in the source's order.

    Args:
      source: random access to records.
      batch_size: `B`; the last batch of an epoch is padded.
      epochs: how many.
      image, transforms, tokenizer, context_length, caption_weights, seed: see `train_batches`.
      max_bad_share, num_workers, num_threads: see `train_batches`.
      shard: number of this process, and how many there are: each has some of the batches, whole ones.

    Yields:
      The epoch, and a batch of `image` or `text` with `text_mask`, `index`, `key` uint64 `[B]` (see `record_key`) and
      `mask` bool `[B]`, False for padding and for records that cannot be read.
    """
    order = make_order(len(source), batch_size=batch_size, seed=seed, shuffle=False, remainder="pad", shard=(0, 1))
    probe(source, image=image is not None, captions=tokenizer is not None)
    reader = ExampleReader(
        source=source,
        order=order,
        augment=compose(transforms, image) if image else None,
        tokenizer=tokenizer,
        context_length=context_length,
        caption_weights=caption_weights,
        labels=False,
        keys=True,
    )
    process, processes = shard
    batches = order.positions(epochs) // batch_size
    first, end = (batches * part // processes for part in (process, process + 1))
    batcher = Batcher(
        reader,
        batch_size=batch_size,
        start=first * batch_size,
        stop=end * batch_size,
        remainder="pad",
        lengths=(context_length,),
        max_bad_share=max_bad_share,
        num_workers=num_workers,
        num_threads=num_threads,
    )
    try:
        for number, batch in enumerate(batcher, first):
            yield number * batch_size // order.epoch_length, batch
    finally:
        batcher.close()


def check_banks(
    banks: Mapping[str, FeatureBank],
    *,
    records: int,
    epochs: int | None,
    image: ImageSpec | None,
    transforms: Sequence[TransformConfig],
    tokenizer: Tokenizer | None,
    context_length: int,
    caption_weights: Sequence[float] | None,
    seed: int,
) -> None:
    """Compares banks with the views of a stream.

    A bank named as a modality stands in for it, so that its preprocessing has to be the stream's own; one of another
    name is a teacher's, which may see a larger picture, but of the same random crop.

    Raises:
      StaleBankError: a bank is of other records or other views, or holds too few epochs of them.
    """
    for name, bank in banks.items():
        modality = bank.info.modality
        if name in ("image", "text") and name != modality:
            raise StaleBankError(f"features.{name} is {bank.folder}, a bank of {modality} embeddings; rename it")
        if modality == "image" and image is not None:
            preprocessing, views = describe_image_views(image, transforms=transforms, seed=seed)
        elif modality == "text" and tokenizer is not None:
            preprocessing, views = describe_text_views(
                tokenizer, context_length=context_length, caption_weights=caption_weights, seed=seed
            )
        else:
            raise ValueError(f"features.{name} is a bank of {modality} embeddings: give the {modality} settings too")
        bank.check(records=records, views=views, **({"preprocessing": preprocessing} if name == modality else {}))
        if bank.random and (epochs is None or epochs > bank.info.epochs):
            raise StaleBankError(
                f"the feature bank {bank.folder} holds {bank.info.epochs} epochs of random views, and the stream "
                f"{'never ends' if epochs is None else f'has {epochs}'}; set view_epochs={bank.info.epochs} to repeat "
                "them, or write more"
            )
