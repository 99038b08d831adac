"""A step of CLIP's training, beside open_clip's: pairs a second, on text padded to 77 and on real captions.

    python -m benchmarks.train_step --json=train_step.json

Both sides have the same architecture with random weights, float32, AdamW with the same groups, the same pictures and
the same ids of open_clip's tokenizer. `padded`: every text has 77 tokens. `captions`: the captions of `--data` (made by
`python -m experiments.prepare_data`) in random batches; open_clip pads them to 77 as it always does, mmjax to the
smallest of `--buckets` that holds the batch's longest (`data.buckets`). `grouped`: batches of captions of one bucket
(`data.group_by_length`).

Each side has a process of its own, with glibc's huge pages where the machine has them; they take turns. Medians over
the rounds, the ratio first (above 1: mmjax is faster).
"""

import argparse
import datetime
import functools
import os
import statistics
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks import measure
from mmjax.config import parse_call
from mmjax.data.buckets import bucket_length
from mmjax.data.sources import build_source
from mmjax.methods.clip import clip
from mmjax.models import build_dual_encoder
from mmjax.optim import build_optimizer
from mmjax.train import create_state, make_train_step

LEARNING_RATE = 5e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="ViT-B/32")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--data", default="arrayrecord:path=data/stamps,split=train", help="source of the captions")
    parser.add_argument("--buckets", nargs="+", type=int, default=[16, 32, 77])
    parser.add_argument("--batches", type=int, default=4, help="of captions, a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="file to write the numbers to")
    args = parser.parse_args()

    from benchmarks.peers import train_step as peer

    os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    rng = np.random.default_rng(0)
    ids = caption_ids(args.data)
    padded = rng.integers(1, 49406, ids[: args.batch_size].shape, dtype=np.int32)
    padded[:, 0], padded[:, -1] = 49406, 49407
    texts_of = {
        "padded": [padded],
        "captions": np.split(ids[: args.batches * args.batch_size], args.batches),
        "grouped": grouped(ids, args)[: args.batches],
    }
    cut = {what: [shortest(part, args.buckets) for part in several] for what, several in texts_of.items()}
    sides = {
        "mmjax": measure.Apart(ours, args.preset, args.batch_size, cut),
        "open_clip": measure.Apart(peer.train_steps, args.preset, args.batch_size, texts_of, LEARNING_RATE),
    }

    rows = []
    for what, several in cut.items():
        jobs = {side: functools.partial(apart, what) for side, apart in sides.items()}
        found = measure.interleaved(jobs, repeats=args.rounds)
        rates = {side: len(several) * args.batch_size / seconds.wall for side, seconds in found.items()}
        rows.append(
            {
                "text": what,
                "ratio": rates["mmjax"] / rates["open_clip"],
                "cpu ratio": found["open_clip"].cpu / found["mmjax"].cpu,
                "tokens": statistics.mean(part.shape[1] for part in several),
                **{f"{side} pairs/s": rate for side, rate in rates.items()},
            }
        )
        print(measure.table(rows[-1:]), file=sys.stderr, flush=True)
    about = {"peer": peer.SOURCE, "jax": jax.__version__, "cores": os.cpu_count(), "batch size": args.batch_size}
    print(", ".join(f"{name}: {value}" for name, value in about.items()))
    print(measure.table(rows))
    if args.json:
        measure.write(args.json, rows, command=sys.argv, date=str(datetime.date.today()), **about)


def caption_ids(data: str) -> np.ndarray:
    """The captions of a source in random order, as open_clip's tokenizer gives them: int32 `[.., 77]`, 0 = padding."""
    from benchmarks.peers import train_step as peer

    name, settings = parse_call(data)
    texts = [text for record in build_source(name=name, **settings) for text in record["captions"]]
    return peer.tokenizer()([texts[i] for i in np.random.default_rng(0).permutation(len(texts))]).astype(np.int32)


def grouped(ids: np.ndarray, args: argparse.Namespace) -> list[np.ndarray]:
    """Batches of captions of like length, in the order in which one pass fills them (`data.group_by_length`)."""
    waiting: dict[int, list[int]] = {length: [] for length in args.buckets}
    batches = []
    for i, length in enumerate(np.count_nonzero(ids, axis=1)):
        pool = waiting[bucket_length(args.buckets, int(length))]
        pool.append(i)
        if len(pool) == args.batch_size:
            batches.append(ids[pool])
            pool.clear()
    return batches


def shortest(ids: np.ndarray, buckets: list[int]) -> np.ndarray:
    """The ids without the padding that their bucket spares them."""
    return np.ascontiguousarray(ids[:, : bucket_length(buckets, int(np.count_nonzero(ids, axis=1).max()))])


def ours(preset: str, batch_size: int, texts: dict[str, list[np.ndarray]]) -> Callable[[str], None]:
    """The job: an update on each batch of one kind of text."""
    pictures = pixels(batch_size)
    method = clip(build_dual_encoder(preset))
    variables = jax.jit(method.init)(jax.random.key(0), as_batch(pictures, texts["padded"][0]))
    bounds = {"log_scale": (0.0, float(np.log(100)))}
    settings: dict[str, Any] = {"b1": 0.9, "b2": 0.98, "eps": 1e-6, "weight_decay": 0.2, "bounds": bounds}
    optimizer = build_optimizer(variables.params, name="adamw", learning_rate=LEARNING_RATE, **settings)
    update = jax.jit(make_train_step(method, optimizer), donate_argnums=0)
    state = create_state(variables, optimizer, key=jax.random.key(1))

    def run(what: str) -> None:
        nonlocal state
        for ids in texts[what]:
            state, metrics = update(state, as_batch(pictures, ids))
            float(metrics["loss"])

    return run


def pixels(batch_size: int) -> np.ndarray:
    """Pictures `[B, 224, 224, 3]` of noise."""
    return np.random.default_rng(1).normal(size=(batch_size, 224, 224, 3)).astype(np.float32)


def as_batch(images: np.ndarray, ids: np.ndarray) -> dict[str, np.ndarray]:
    return {"image": images, "text": ids, "text_mask": ids != 0}


if __name__ == "__main__":
    main()
