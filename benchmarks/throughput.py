"""Embedding throughput beside open_clip: pictures and texts a second, no gradient.

    python -m benchmarks.throughput --json=throughput.json

The same architecture with random weights, float32, the same pictures and the same ids of open_clip's tokenizer, which
pads every text to 77; mmjax embeds texts of that length (`text`) and cut to the smallest of `--buckets` that holds the
batch's longest (`captions`, as its evaluation and feature banks do by `data.buckets`). Each side has a process of its
own; they take turns. Medians over the rounds, the ratio first (above 1: mmjax is faster).
"""

import argparse
import datetime
import functools
import os
import sys
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from benchmarks.train_step import caption_ids, pixels, shortest
from mmjax.methods.clip import clip
from mmjax.models import build_dual_encoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="ViT-B/32")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--data", default="arrayrecord:path=data/stamps,split=train", help="source of the captions")
    parser.add_argument("--buckets", nargs="+", type=int, default=[16, 32, 77])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", help="file to write the numbers to")
    args = parser.parse_args()

    from benchmarks.peers import train_step as peer

    os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    ids = caption_ids(args.data)[: args.batch_size]
    theirs = {"image": pixels(args.batch_size), "text": ids, "captions": ids}
    inputs = theirs | {"captions": shortest(ids, args.buckets)}
    sides = {
        "mmjax": measure.Apart(ours, args.preset, inputs),
        "open_clip": measure.Apart(peer.embeds, args.preset, theirs),
    }
    rows = []
    for what in inputs:
        jobs = {side: functools.partial(apart, what) for side, apart in sides.items()}
        found = measure.interleaved(jobs, repeats=args.rounds)
        rates = {side: args.batch_size / seconds.wall for side, seconds in found.items()}
        rows.append(
            {
                "input": what,
                "ratio": rates["mmjax"] / rates["open_clip"],
                "cpu ratio": found["open_clip"].cpu / found["mmjax"].cpu,
                **{f"{side} a second": rate for side, rate in rates.items()},
            }
        )
    about = {"peer": peer.SOURCE, "jax": jax.__version__, "cores": os.cpu_count(), "batch size": args.batch_size}
    print(", ".join(f"{name}: {value}" for name, value in about.items()))
    print(measure.table(rows))
    if args.json:
        measure.write(args.json, rows, command=sys.argv, date=str(datetime.date.today()), **about)


def ours(preset: str, inputs: Mapping[str, np.ndarray]) -> Callable[[str], None]:
    """The job: embeddings of one kind of input."""
    method = clip(build_dual_encoder(preset))
    example = {"image": jnp.zeros((1, 224, 224, 3)), "text": jnp.zeros((1, 77), jnp.int32)}
    params = jax.jit(method.init)(jax.random.key(0), example | {"text_mask": jnp.ones((1, 77), bool)}).params
    encode = {modality: jax.jit(function) for modality, function in method.encoders.items()}

    def run(what: str) -> None:
        array = inputs[what]
        if what == "image":
            found = encode["image"](params, {"image": array})
        else:
            found = encode["text"](params, {"text": array, "text_mask": array != 0})
        jax.block_until_ready(found)

    return run


if __name__ == "__main__":
    main()
