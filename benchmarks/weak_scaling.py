"""Weak scaling of the sharded contrastive losses, value and gradient, read from the compiled program: nothing is timed.

    python -m benchmarks.weak_scaling --json=weak_scaling.json

Every device has the same number of rows, and all of them are contrasted: with n devices a device computes n times as
much. Ratios come first, against one device: `FLOPs/n` is what a device computes over n times what one alone does, and
`memory` a device's temporary memory over that of one alone; 1 is ideal for both. `dense` is what the memory of the
dense form on one device would be, over the same. `passes` is what a device sends over the size of all others' texts:
how often these go by.

FLOPs are of the matrix products of the traced program, memory and collectives of what XLA compiles for simulated CPU
devices; bytes are counted by ring algorithms.
"""

import argparse
import collections
import datetime
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from benchmarks import measure
from mmjax import losses, parallel
from mmjax.train.flops import count_flops

MIB = 2**20
KINDS = ("collective-permute", "all-gather", "all-to-all", "all-reduce")
FORMS = (("clip", "ring"), ("clip", "all_gather"), ("siglip", "ring"))


class Program(NamedTuple):
    """FLOPs and bytes of temporary memory of a device, bytes that it sends by kind of collective."""

    flops: float
    memory: int
    sent: collections.Counter[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", nargs="+", type=int, default=(1, 2, 4, 8))
    parser.add_argument("--rows", type=int, default=2048, help="a device")
    parser.add_argument("--width", type=int, default=512, help="of the embeddings")
    parser.add_argument("--block_size", type=int, default=1024)
    parser.add_argument("--json", help="file to write the numbers to")
    args = parser.parse_args()
    parallel.simulate_devices(max(args.devices))

    rows = []
    for loss, exchange in FORMS:
        alone = compiled(loss, exchange, 1, args)
        for devices in args.devices:
            rows.append(row(loss, exchange, devices, alone, args))
            print(measure.table(rows[-1:]), file=sys.stderr, flush=True)
    about = {"rows a device": args.rows, "D": args.width, "block_size": args.block_size, "jax": jax.__version__}
    print(", ".join(f"{name}: {value}" for name, value in about.items()))
    print(measure.table(rows))
    if args.json:
        measure.write(args.json, rows, command=sys.argv, date=str(datetime.date.today()), **about)


def row(loss: str, exchange: str, devices: int, alone: Program, args: argparse.Namespace) -> dict[str, Any]:
    """A row of the table."""
    found = compiled(loss, exchange, devices, args)
    dense = compiled(loss, None, devices, args)
    others = (devices - 1) * args.rows * args.width * 4
    return {
        "loss": loss,
        "exchange": exchange,
        "devices": devices,
        "FLOPs/n": found.flops / alone.flops / devices,
        "memory": found.memory / alone.memory,
        "dense": dense.memory / alone.memory,
        "passes": found.sent.total() / others if others else None,
        "GFLOP": found.flops / 1e9,
        "MiB": found.memory / MIB,
        **{f"{kind} MiB": found.sent[kind] / MIB for kind in KINDS},
    }


def compiled(loss: str, exchange: str | None, devices: int, args: argparse.Namespace) -> Program:
    """The program of value and gradients, for rows split over devices or, without exchange, dense on one device."""
    mesh = Mesh(np.asarray(jax.devices()[: devices if exchange else 1]), ("data",))
    settings: dict[str, Any] = {"block_size": args.block_size} if exchange else {"block_size": 0}
    if loss == "clip" and exchange:
        settings["exchange"] = exchange
    function = losses.clip_loss if loss == "clip" else losses.siglip_loss
    over_rows = parallel.sharded(function, mesh, axis_name="data") if exchange else function

    def mean(images: jax.Array, texts: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        scalars = {"scale": scale} if loss == "clip" else {"scale": scale, "bias": bias}
        return jnp.mean(over_rows(images, texts, **scalars, **settings))

    split = jax.NamedSharding(mesh, jax.P("data"))
    rows = jax.ShapeDtypeStruct((devices * args.rows, args.width), jnp.float32, sharding=split)
    scalar = jax.ShapeDtypeStruct((), jnp.float32, sharding=jax.NamedSharding(mesh, jax.P()))
    gradients = jax.jit(
        jax.value_and_grad(mean, argnums=(0, 1, 2, 3)), out_shardings=(None, (split, split, None, None))
    )
    traced = gradients.trace(rows, rows, scalar, scalar)
    program = traced.lower().compile()
    sent: collections.Counter[str] = collections.Counter()
    for collective in parallel.collective_traffic(program.as_text() or ""):
        sent[collective.kind] += collective.sent
    memory: Any = program.memory_analysis()
    return Program(count_flops(traced.jaxpr) / mesh.size, memory.temp_size_in_bytes, sent)


if __name__ == "__main__":
    main()
