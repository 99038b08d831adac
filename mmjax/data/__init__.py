"""Sources, transforms, tokenizers and pipelines: from records to batches of NumPy arrays."""

from mmjax.data.bank import FeatureBank, StaleBankError
from mmjax.data.batching import ArraySpec, Batch, TooManyBadRecordsError
from mmjax.data.evaluation import caption_batches, image_batches
from mmjax.data.examples import choose_caption
from mmjax.data.image_spec import CLIP_MEAN, CLIP_STD, ImageSpec, normalize, resize_as
from mmjax.data.images import decode_image, resize_to
from mmjax.data.iterator import BatchIterator
from mmjax.data.pipeline import train_batches
from mmjax.data.randomness import Draws
from mmjax.data.records import CorruptRecordError, RecordSource, is_synthetic
from mmjax.data.tokenizers import Tokenizer, clip_bpe, train_bpe
from mmjax.data.transforms import compose

__all__ = [
    "CLIP_MEAN",
    "CLIP_STD",
    "ArraySpec",
    "Batch",
    "BatchIterator",
    "CorruptRecordError",
    "Draws",
    "FeatureBank",
    "ImageSpec",
    "RecordSource",
    "StaleBankError",
    "Tokenizer",
    "TooManyBadRecordsError",
    "caption_batches",
    "choose_caption",
    "clip_bpe",
    "compose",
    "decode_image",
    "image_batches",
    "is_synthetic",
    "normalize",
    "resize_as",
    "resize_to",
    "train_batches",
    "train_bpe",
]
