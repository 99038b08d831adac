"""Run by `test_sharded.py` on eight devices: every loss over all pairs, against one device, and its program."""

import functools
import itertools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmjax import losses, parallel
from tests.losses.pair_examples import EXAMPLES, VARIABLES, WEIGHTS, largest_difference, value_and_gradients

EXCHANGES = ("ring", "all_gather")


# Loss, exchange, devices, block size: every loss on eight devices, all numbers of devices, blocks that do not divide.
CASES = [
    *((name, "ring", devices, None) for name in ("clip", "siglip", "distillation") for devices in (1, 2, 4, 8)),
    *(("clip", "all_gather", devices, None) for devices in (1, 2, 4, 8)),
    *((name, exchange, 8, None) for name in ("info_nce_ids", "filip_masked") for exchange in EXCHANGES),
    ("distillation", "all_gather", 8, None),
    ("info_nce", "ring", 8, None),
    ("siglip_negatives", "ring", 8, None),
    *(("clip", exchange, 2, 3) for exchange in EXCHANGES),
]


def settings(name, exchange):
    """siglip_loss has the ring only."""
    return {} if name.startswith("siglip") else {"exchange": exchange}


def line(devices):
    return Mesh(np.array(jax.devices()[:devices]), ("data",))


def differences():
    """From the dense form on one device."""
    names = {name for name, *_ in CASES}
    expected = jax.jit(lambda: {name: value_and_gradients(name, block_size=0) for name in names})()
    found = {}
    for name, exchange, devices, block_size in CASES:
        wrap = functools.partial(parallel.sharded, mesh=line(devices), axis_name="data")
        gradients = functools.partial(
            value_and_gradients, name, wrap, block_size=block_size, **settings(name, exchange)
        )
        key = f"{name}/{exchange}/{devices}" + (f"/blocks of {block_size}" if block_size else "")
        found[key] = largest_difference(jax.jit(gradients)(), expected[name])
    return found


def other_ways():
    """clip_loss on a mesh of three axes, by the mesh in context, without JAX's own check, differentiated inside."""
    expected = jax.jit(functools.partial(value_and_gradients, "clip", block_size=0))()
    mesh = parallel.make_mesh(data=2, fsdp=2, tensor=2)
    rows = PartitionSpec("data")

    def unchecked(loss):
        def call(images, texts, *, scale, block_size):
            def each(images, texts, scale):
                return loss(images, texts, scale=scale, block_size=block_size, axis_name="data")

            specs = (rows, rows, PartitionSpec())
            mapped = jax.shard_map(each, mesh=line(4), in_specs=specs, out_specs=rows, check_vma=False)
            return mapped(images, texts, scale)

        return call

    ways = {"three axes": functools.partial(parallel.sharded, mesh=mesh), "in context": parallel.sharded}
    ways["unchecked"] = unchecked
    with jax.set_mesh(mesh):
        found = {
            way: largest_difference(jax.jit(functools.partial(value_and_gradients, "clip", wrap))(), expected)
            for way, wrap in ways.items()
            if way != "unchecked"
        }
    found["unchecked"] = largest_difference(
        jax.jit(functools.partial(value_and_gradients, "clip", unchecked, block_size=0))(), expected
    )

    def inside(images, texts, scale, weights):
        def total(images, texts, scale):
            return jnp.sum(weights * losses.clip_loss(images, texts, scale=scale, axis_name="data"))

        return jax.grad(total, argnums=(0, 1, 2))(images, texts, scale)

    specs = ((rows, rows, PartitionSpec(), rows), (rows, rows, PartitionSpec()))
    arguments = (VARIABLES["images"], VARIABLES["texts"], VARIABLES["scale"], WEIGHTS)
    gradients = jax.jit(jax.shard_map(inside, mesh=line(4), in_specs=specs[0], out_specs=specs[1]))(*arguments)
    names = ("images", "texts", "scale")
    gradients = dict(zip(names, gradients, strict=True))
    found["differentiated inside"] = largest_difference(gradients, {name: expected[name] for name in names})
    return found


def program(name, exchange, devices, batch, width=16, block_size=32):
    """The compiled gradient of one device."""
    loss, _, learned, _ = EXAMPLES[name]
    wrapped = parallel.sharded(loss, line(devices), axis_name="data")

    def total(embeds, teacher, scalars):
        taught = {"teacher_scale": 9.0} if teacher else {}
        values = wrapped(*embeds, *teacher, **scalars, **taught, block_size=block_size, **settings(name, exchange))
        return jnp.mean(values)

    place = NamedSharding(line(devices), PartitionSpec("data"))
    pair = [jax.ShapeDtypeStruct((batch, width), jnp.float32, sharding=place)] * 2
    scalars = {key: jax.ShapeDtypeStruct((), jnp.float32) for key in learned}
    teacher = pair if name == "distillation" else []
    return jax.jit(jax.grad(total, argnums=(0, 2))).lower(pair, teacher, scalars).compile()


def read(text):
    """Of a program: the numbers in its largest array, and the bytes of each collective by kind."""
    moved = {}
    kinds = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter|collective-broadcast"
    for result, kind in re.findall(rf"= (.*?) ({kinds})(?:-start)?\(", text):
        moved.setdefault(kind, []).append(4 * sum(map(size, re.findall(r"\w+\[([\d,]*)\]", result))))
    return {"largest": max(map(size, re.findall(r"[fs]32\[([\d,]*)\]", text))), "moved": moved}


def size(dimensions):
    return int(np.prod([int(n) for n in dimensions.split(",") if n]))


if __name__ == "__main__":
    programs = {
        f"{name}/{exchange}": read(program(name, exchange, 8, 1024).as_text())
        for name, exchange in [("siglip", "ring"), *itertools.product(("clip", "distillation"), EXCHANGES)]
    }
    memory = {
        devices: program("clip", "ring", devices, 64 * devices).memory_analysis().temp_size_in_bytes
        for devices in (2, 4, 8)
    }
    found = {"differences": differences() | other_ways(), "programs": programs, "memory": memory}
    print(json.dumps(found))
