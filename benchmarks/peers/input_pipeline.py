"""The input pipeline of open_clip's trainer, in its own words: web-dataset shards, torchvision, a torch DataLoader."""

from collections.abc import Iterator, Sequence

import numpy as np
import tokenizers
import torch
import torchvision
import webdataset
from torchvision import transforms

# As in the workers of a DataLoader: threads for one picture's operators cost more than they bring.
torch.set_num_threads(1)

SOURCE = f"webdataset {webdataset.__version__}, torch {torch.__version__}, torchvision {torchvision.__version__}"


def picture_transform(size: int, mean: Sequence[float], std: Sequence[float], *, flip: float) -> transforms.Compose:
    """From Pillow's picture to a normalised tensor [3, size, size]."""
    bicubic = transforms.InterpolationMode.BICUBIC
    return transforms.Compose(
        [
            transforms.Resize(size, interpolation=bicubic),
            transforms.CenterCrop(size),
            transforms.RandomHorizontalFlip(flip),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )


def text_transform(tokenizer_file: str, length: int):
    """From texts to ids [B, length]."""
    tokenizer = tokenizers.Tokenizer.from_file(tokenizer_file)
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=tokenizer.token_to_id("<|padding|>"), pad_token="<|padding|>")
    return lambda texts: np.asarray([encoding.ids for encoding in tokenizer.encode_batch(texts)], np.int32)


def batches(
    shards: Sequence[str],
    *,
    batch_size: int,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    tokenizer_file: str,
    length: int,
    workers: int,
    flip: float = 0.5,
    shuffle: int = 1000,
) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
    """Endless pairs of pictures [B, 3, size, size] and ids [B, length]."""
    encode = text_transform(tokenizer_file, length)
    steps = [
        webdataset.ResampledShards(list(shards)) if shuffle else webdataset.SimpleShardList(list(shards)),
        webdataset.split_by_worker,
        webdataset.tarfile_to_samples(),
        *([webdataset.shuffle(shuffle)] if shuffle else []),
        webdataset.decode("pilrgb"),
        webdataset.to_tuple("jpg", "txt"),
        webdataset.map_tuple(picture_transform(size, mean, std, flip=flip), lambda text: text),
        webdataset.batched(batch_size, partial=not shuffle),
        webdataset.map_tuple(lambda pictures: pictures, encode),
    ]
    return iter(webdataset.WebLoader(webdataset.DataPipeline(*steps), batch_size=None, num_workers=workers))
