"""From web-dataset shards to batches of pictures and token ids: mmjax against webdataset and a torch DataLoader.

    python -m benchmarks.input_pipeline --json=input_pipeline.json

Both read the same shards and do the same to them: decode JPEG, scale the shorter side, cut out the centre, flip half of
the pictures, normalise; tokenize with one tokenizer, pad to 77. The pixels are compared before anything is timed. Both
start anew in every round, take turns, and are timed from their first batch on; medians over the rounds, ratio first
(above 1: mmjax is faster). mmjax shuffles all records, webdataset shards and a window of 1,000 records.
"""

import argparse
import contextlib
import datetime
import io
import os
import pathlib
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import measure
from mmjax.data import ImageSpec, Tokenizer, train_batches, train_bpe
from mmjax.data.sources import build_source

LENGTH = 77


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", nargs="+", type=int, default=(0, 2))
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--records", type=int, default=512, help="a shard")
    parser.add_argument("--pixels", type=int, default=256, help="side of the stored pictures")
    parser.add_argument("--size", type=int, default=224, help="side of the pictures in a batch")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--batches", type=int, default=24, help="timed a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="file to write the numbers to")
    args = parser.parse_args()

    from benchmarks.peers import input_pipeline as peer

    with tempfile.TemporaryDirectory() as folder:
        shards = write_shards(pathlib.Path(folder), args)
        tokenizer_file = f"{folder}/tokenizer.json"
        captions = [build_source("shapes", num_records=1000)[index]["captions"][0] for index in range(1000)]
        train_bpe(captions, vocab_size=1024).save(tokenizer_file)
        compare_contents(shards, tokenizer_file, args)
        rows = []
        for workers in args.workers:
            sides = {
                "mmjax": lambda workers=workers: ours(shards, tokenizer_file, args, workers=workers),
                "webdataset": lambda workers=workers: theirs(shards, tokenizer_file, args, workers=workers),
            }
            rates: dict[str, list[float]] = {side: [] for side in sides}
            for _ in range(args.rounds):
                for side, open_side in sides.items():
                    rates[side].append(rate(open_side, args))
            medians = {side: statistics.median(found) for side, found in rates.items()}
            rows.append(
                {
                    "workers": workers,
                    "ratio": medians["mmjax"] / medians["webdataset"],
                    **{f"{side} examples/s": median for side, median in medians.items()},
                    **{f"{side} range": f"{min(found):.0f}-{max(found):.0f}" for side, found in rates.items()},
                }
            )
            print(measure.table(rows[-1:]), file=sys.stderr, flush=True)
    about = {"peer": peer.SOURCE, "cores": os.cpu_count(), "batch size": args.batch_size, "JPEG": args.pixels}
    print(", ".join(f"{name}: {value}" for name, value in about.items()))
    print(measure.table(rows))
    if args.json:
        measure.write(args.json, rows, command=sys.argv, date=str(datetime.date.today()), **about)


def rate(open_side: Callable[[], contextlib.AbstractContextManager[Iterator[Any]]], args: argparse.Namespace) -> float:
    """Examples a second, from the second batch to the last: what starts workers is left out."""
    with open_side() as batches:
        next(batches)
        start = time.perf_counter()
        for _ in range(args.batches):
            next(batches)
        return args.batches * args.batch_size / (time.perf_counter() - start)


def ours(
    shards: list[str], tokenizer_file: str, args: argparse.Namespace, *, workers: int = 0, random: bool = True
) -> contextlib.AbstractContextManager[Iterator[Any]]:
    """mmjax's batches."""
    return train_batches(
        build_source("webdataset", path=shards),
        batch_size=args.batch_size,
        image=ImageSpec(args.size),
        tokenizer=Tokenizer.load(tokenizer_file),
        context_length=LENGTH,
        transforms=("flip",) if random else (),
        shuffle=random,
        num_workers=workers,
    )


@contextlib.contextmanager
def theirs(
    shards: list[str], tokenizer_file: str, args: argparse.Namespace, *, workers: int = 0, random: bool = True
) -> Iterator[Iterator[Any]]:
    """webdataset's; its workers end when nobody holds the iterator."""
    from benchmarks.peers import input_pipeline as peer

    spec = ImageSpec(args.size)
    yield peer.batches(
        shards,
        batch_size=args.batch_size,
        size=args.size,
        mean=spec.mean,
        std=spec.std,
        tokenizer_file=tokenizer_file,
        length=LENGTH,
        workers=workers,
        flip=0.5 if random else 0.0,
        shuffle=1000 if random else 0,
    )


def compare_contents(shards: list[str], tokenizer_file: str, args: argparse.Namespace) -> None:
    """Raises AssertionError where the first batches, in order and without flips, differ."""
    with (
        ours(shards, tokenizer_file, args, random=False) as left,
        theirs(shards, tokenizer_file, args, random=False) as right,
    ):
        batch, (pictures, ids) = next(left), next(right)
    np.testing.assert_allclose(batch["image"], np.moveaxis(pictures.numpy(), 1, -1), atol=1e-5)
    np.testing.assert_array_equal(batch["text"], ids)


def write_shards(folder: pathlib.Path, args: argparse.Namespace) -> list[str]:
    """Shards of JPEG files with captions; their pictures have coarse and fine detail, as photographs do."""
    draw = np.random.default_rng(0)
    captions = build_source("shapes", num_records=args.shards * args.records)
    pictures = [jpeg(draw, args.pixels) for _ in range(min(256, args.records))]
    shards = []
    for shard in range(args.shards):
        shards.append(str(folder / f"{shard:04d}.tar"))
        with tarfile.open(shards[-1], "w") as tar:
            for record in range(args.records):
                number = shard * args.records + record
                text = captions[number]["captions"][0].encode()
                for extension, content in (("jpg", pictures[number % len(pictures)]), ("txt", text)):
                    member = tarfile.TarInfo(f"{number:08d}.{extension}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return shards


def jpeg(draw: np.random.Generator, side: int) -> bytes:
    """A picture of noise at several scales, as JPEG of quality 90."""
    pixels = np.zeros((side, side, 3))
    for cells, strength in ((4, 60), (16, 30), (64, 10)):
        coarse = Image.fromarray(draw.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        pixels += strength * (np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)) / 127.5 - 1)
    file = io.BytesIO()
    Image.fromarray(np.clip(pixels + 128, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


if __name__ == "__main__":
    main()
