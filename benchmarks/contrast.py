"""Contrastive losses, value and gradient: in blocks, dense, and open_clip's, side by side.

    python -m benchmarks.contrast --json=contrast.json                  # memory for 2k..64k, time up to 16k
    python -m benchmarks.contrast --losses clip --batches 65536 --time_up_to 65536 --rounds 1

Embeddings are un-normalised float32 and every form normalises them, so that all compute the same gradients. Ratios
come first: `t/dense` is the time in blocks over that of the dense form (below 1: blocks are faster), `cpu/dense` the
same of the time that all cores spent, `dense/m` the dense form's memory over that in blocks. The memory of XLA is the
temporary memory of the compiled program, that of torch what the process's peak rises by.
"""

import argparse
import datetime
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from mmjax import losses

SCALE, BIAS, MIB = 10.0, -10.0, 2**20
FORMS = ("block", "dense", "torch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--losses", nargs="+", choices=("clip", "siglip"), default=("clip", "siglip"))
    parser.add_argument("--batches", nargs="+", type=int, default=[2**n for n in range(11, 17)])
    parser.add_argument("--width", type=int, default=512, help="of the embeddings")
    parser.add_argument("--block_size", type=int, default=1024)
    parser.add_argument("--time_up_to", type=int, default=16384, help="largest batch that is run, not only compiled")
    parser.add_argument("--peers_up_to", type=int, default=16384, help="largest batch of which all forms are run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="file to write the numbers to")
    parser.add_argument("--torch_memory", action="store_true", help="print torch's memory of one step and stop")
    args = parser.parse_args()
    if args.torch_memory:
        print(torch_bytes(args.losses[0], args.batches[0], args.width))
        return

    from benchmarks.peers import contrast

    rows = []
    for loss in args.losses:
        for batch in args.batches:
            rows.append(compare(loss, batch, args))
            print(measure.table(rows[-1:]), file=sys.stderr, flush=True)
    about = {"D": args.width, "block_size": args.block_size, "cores": os.cpu_count(), "torch": contrast.SOURCE}
    print(", ".join(f"{name}: {value}" for name, value in about.items()))
    print(measure.table(rows))
    if args.json:
        measure.write(args.json, rows, command=sys.argv, date=str(datetime.date.today()), **about)


def compare(loss: str, batch: int, args: argparse.Namespace) -> dict[str, Any]:
    """A row of the table."""
    from benchmarks.peers import contrast

    rows, scalar = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((batch, args.width), ()))
    compiled = {
        form: value_and_gradients(loss, size).lower(rows, rows, scalar, scalar).compile()
        for form, size in {"block": args.block_size, "dense": 0}.items()
    }
    memory = {form: program.memory_analysis().temp_size_in_bytes / MIB for form, program in compiled.items()}
    seconds = {}
    if batch <= args.time_up_to:
        arrays = embeddings(batch, args.width)
        inputs = (*map(jnp.asarray, arrays), jnp.float32(SCALE), jnp.float32(BIAS))
        jobs: dict[str, Callable[[], Any]] = {
            form: functools.partial(lambda program: jax.block_until_ready(program(*inputs)), program)
            for form, program in compiled.items()
        }
        jobs["torch"] = contrast.step(loss, *arrays, scale=SCALE, bias=BIAS)
        if batch > args.peers_up_to:
            jobs = {"block": jobs["block"]}
        else:
            if batch <= 4096:  # where one more run costs little: all forms compute the same
                values = [float(jobs["block"]()[0]), float(jobs["dense"]()[0]), jobs["torch"]()]
                np.testing.assert_allclose(values, values[0], rtol=1e-4)
            memory["torch"] = torch_bytes_apart(loss, batch, args.width) / MIB
        seconds = measure.interleaved(jobs, repeats=args.rounds)
    wall, cpu = ({form: spent[i] for form, spent in seconds.items()} for i in range(2))
    return {
        "loss": loss,
        "B": batch,
        "t/dense": ratio(wall, "block", "dense"),
        "t/torch": ratio(wall, "block", "torch"),
        "cpu/dense": ratio(cpu, "block", "dense"),
        "cpu/torch": ratio(cpu, "block", "torch"),
        "dense/m": ratio(memory, "dense", "block"),
        "torch/m": ratio(memory, "torch", "block"),
        **{f"{form} s": wall.get(form) for form in FORMS},
        **{f"{form} MiB": memory.get(form) for form in FORMS},
    }


def embeddings(batch: int, width: int) -> Sequence[np.ndarray]:
    """Images and texts, of which pairs have something in common."""
    draw = np.random.default_rng(0)
    images, noise = (draw.normal(size=(batch, width)).astype(np.float32) for _ in range(2))
    return images, images + noise


def value_and_gradients(loss: str, block_size: int) -> Any:
    """The compiled function of images, texts, scale and bias."""

    def mean(images: jax.Array, texts: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        if loss == "clip":
            return jnp.mean(losses.clip_loss(images, texts, scale=scale, block_size=block_size))
        return jnp.mean(losses.siglip_loss(images, texts, scale=scale, bias=bias, block_size=block_size))

    return jax.jit(jax.value_and_grad(mean, argnums=(0, 1, 2, 3)))


def torch_bytes(loss: str, batch: int, width: int) -> int:
    """How far one step of torch raises this process's peak."""
    from benchmarks.peers import contrast

    contrast.step(loss, *embeddings(64, width), scale=SCALE, bias=BIAS)()
    step = contrast.step(loss, *embeddings(batch, width), scale=SCALE, bias=BIAS)
    before = measure.peak_bytes()
    step()
    return measure.peak_bytes() - before


def torch_bytes_apart(loss: str, batch: int, width: int) -> int:
    """The same in a process of its own, since a peak never falls."""
    command = [sys.executable, "-m", "benchmarks.contrast", "--torch_memory"]
    command += ["--losses", loss, "--batches", str(batch), "--width", str(width)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def ratio(found: Mapping[str, float], above: str, below: str) -> float | None:
    """None where one of the two was not measured."""
    return found[above] / found[below] if above in found and below in found else None


if __name__ == "__main__":
    main()
