"""LiT with the frozen image tower live and from a feature bank: pairs a second, side by side.

    python -m benchmarks.frozen_tower --json=frozen_tower.json

Both runs read the same records in the same order, one picture or one row of the bank each. `run` is the whole of
training, input pipeline included; `step` is the compiled step alone, on one batch again and again. The two kinds take
turns, and medians over the rounds are printed, the ratio first.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax

from mmjax import parallel
from mmjax.data import BatchIterator, ImageSpec, train_batches, train_bpe
from mmjax.data.bank import describe_source
from mmjax.data.sources import build_source
from mmjax.evaluate import make_encoders
from mmjax.evaluate.bank import describe_tower, embed_bank
from mmjax.method import Method
from mmjax.methods.lit import lit
from mmjax.models import PRESETS, build_dual_encoder
from mmjax.optim import build_optimizer
from mmjax.train import create_state, make_train_step

TEXT = {"width": 64, "num_layers": 2, "num_heads": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="small/8", help="of the image tower; the text tower is small")
    parser.add_argument("--image_size", type=int, default=64, help="64 pixels are 65 tokens of small/8")
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--records", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=4, help="a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", help="file to write the numbers to")
    args = parser.parse_args()

    settings = {"name": "shapes", "num_records": args.records, "image_size": args.image_size}
    source = build_source(**settings)
    tokenizer = train_bpe([source[index]["captions"][0] for index in range(512)], vocab_size=512)
    image = ImageSpec(args.image_size)
    text = TEXT | {"output_dim": PRESETS[args.preset].image["output_dim"], "vocab_size": tokenizer.vocab_size}
    model = build_dual_encoder(args.preset, image={"image_size": args.image_size}, text=text)
    method = lit(model)
    mesh = parallel.make_mesh()
    texts: dict[str, Any] = {"tokenizer": tokenizer, "context_length": 18}
    inputs: dict[str, Any] = {"batch_size": args.batch_size, "image": image, **texts}

    with tempfile.TemporaryDirectory() as folder:
        with train_batches(source, **inputs) as batches:
            params = jax.jit(method.init)(jax.random.key(0), next(batches)).params
        start = time.perf_counter()
        bank = embed_bank(
            make_encoders(method, image=image, mesh=mesh, **texts),
            params,
            source,
            f"{folder}/bank",
            modality="image",
            description=describe_source(**settings),
            tower=describe_tower(model.image),
            origin={},
        )
        writing = time.perf_counter() - start
        streams = {
            "live": train_batches(source, **inputs),
            "bank": train_batches(source, **inputs, features={"image": bank}),
        }
        steps = {kind: _stepper(method, stream) for kind, stream in streams.items()}
        rates: dict[str, dict[str, list[float]]] = {what: {"live": [], "bank": []} for what in ("run", "step")}
        for _ in range(args.rounds):
            for what, fresh in (("run", True), ("step", False)):
                for kind, step in steps.items():
                    rates[what][kind].append(args.steps * args.batch_size / step(args.steps, fresh))
        for stream in streams.values():
            stream.close()

    medians = {what: {kind: statistics.median(r) for kind, r in by_kind.items()} for what, by_kind in rates.items()}
    report = {
        "ratio": {what: found["bank"] / found["live"] for what, found in medians.items()},
        "pairs_per_second": medians,
        "seconds_to_write_bank": writing,
        "settings": vars(args),
        "machine": {"cpu": platform.processor() or platform.machine(), "devices": len(jax.devices())},
    }
    print(f"{'':6} {'ratio':>7} {'bank pairs/s':>14} {'live pairs/s':>14}")
    for what, found in medians.items():
        print(f"{what:6} {report['ratio'][what]:7.2f} {found['bank']:14,.0f} {found['live']:14,.0f}")
    print(f"the bank of {args.records:,} records was written in {writing:.1f} s")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=2)


def _stepper(method: Method, stream: BatchIterator) -> Callable[[int, bool], float]:
    """Seconds that a number of steps take, on fresh batches or on one; compiled and warm."""
    first = next(stream)
    variables = jax.jit(method.init)(jax.random.key(0), first)
    optimizer = build_optimizer(variables.params, name="adamw", learning_rate=1e-3, trains=method.partition)
    compiled = jax.jit(make_train_step(method, optimizer), donate_argnums=0)
    state, _ = compiled(create_state(variables, optimizer, key=jax.random.key(1)), first)

    def run(count: int, fresh: bool) -> float:
        nonlocal state
        jax.block_until_ready(state)
        start = time.perf_counter()
        for _ in range(count):
            state, _ = compiled(state, next(stream) if fresh else first)
        jax.block_until_ready(state)
        return time.perf_counter() - start

    return run


if __name__ == "__main__":
    main()
