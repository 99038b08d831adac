"""Run by `test_sharding.py` with eight devices: one step on several meshes, against one device."""

import pathlib
import re
import sys

import jax
import numpy as np

from mmjax import parallel
from mmjax.methods.clip import clip
from mmjax.models import build_dual_encoder
from mmjax.optim import build_optimizer
from mmjax.train import Checkpointer, create_state, make_train_step, restore_params
from mmjax.train.fit import CompiledStep

MESHES = {
    "data": {"data": 8},
    "data_fsdp": {"data": 2, "fsdp": 4},
    "fsdp": {"data": 1, "fsdp": 8},
    "data_tensor": {"data": 2, "tensor": 4},
    "all": {"data": 2, "fsdp": 2, "tensor": 2},
}
BATCH, WIDTH, HIDDEN, TOKENS = 16, 32, 128, 17

image = {"width": WIDTH, "num_layers": 1, "num_heads": 4, "output_dim": 16}
text = image | {"num_layers": 2, "scan": True, "vocab_size": 64, "context_length": 8}
method = clip(build_dual_encoder("nano/8", image=image, text=text))
draw = np.random.default_rng(0)
batch = {
    "image": draw.normal(size=(BATCH, 32, 32, 3)).astype(np.float32),
    "text": draw.integers(0, 64, (BATCH, 8)).astype(np.int32),
    "text_mask": np.arange(8) < draw.integers(3, 9, (BATCH, 1)),
}
shapes = jax.eval_shape(method.init, jax.random.key(0), batch)
# The gradient itself is compared: the state of sgd with momentum is the first gradient.
optimizer = build_optimizer(shapes.params, name="sgd", learning_rate=0.1, momentum=0.9)
update = make_train_step(method, optimizer, ema_decay=0.5)


def initial(batch):
    return create_state(method.init(jax.random.key(0), batch), optimizer, key=jax.random.key(1), ema=True)


def compare(found, expected):
    def one(path, a, b):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-6, err_msg=jax.tree_util.keystr(path))

    jax.tree_util.tree_map_with_path(one, jax.device_get(found), jax.device_get(expected))


def share(tree):
    """Bytes of one device over bytes of all."""
    leaves = jax.tree.leaves(tree)
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves) / sum(leaf.nbytes for leaf in leaves)


def check_program(text):
    """The collectives of pure FSDP: whole kernels, their gradients, and embeddings, which the contrast passes round."""
    lines = [
        line
        for line in text.splitlines()
        if re.search(r" (all-gather|all-reduce|all-to-all|collective-permute)\(", line)
    ]
    results = [re.split(r" (?:all|collective)-", line.split(" = ")[1])[0] for line in lines]
    assert not [line for line in lines if "all-to-all" in line]
    assert [line for line in lines if "collective-permute" in line]
    assert any(
        f"f32[{WIDTH},{HIDDEN}]" in result for line, result in zip(lines, results, strict=True) if "all-gather" in line
    )
    for shape in (f"[{BATCH},{TOKENS},", f"[{BATCH},4,{TOKENS},", f"[{BATCH * TOKENS},"):
        assert not [result for result in results if shape in result], shape


def main(workdir):
    one = jax.make_mesh((1, 1, 1), parallel.AXES, devices=jax.devices()[:1])
    start = jax.jit(initial, out_shardings=parallel.replicated(one))(batch)
    expected = jax.jit(update)(start, batch)
    states = {"one": expected[0]}
    for name, sizes in MESHES.items():
        mesh = parallel.make_mesh(**sizes)
        plan = parallel.plan_sharding(shapes.params, mesh, min_size=256)
        shardings = plan.shardings(jax.eval_shape(initial, batch))
        split = parallel.put_batch(batch, mesh)
        state = jax.jit(initial, out_shardings=shardings)(split)
        step = CompiledStep(update, mesh, shardings)
        if name == "fsdp":
            for tree in (state.trainable, state.opt_state, state.ema):
                assert 1 / 8 < share(tree) < 0.2, share(tree)
            print("fsdp: an eighth of parameters, moments and average a device")
            check_program(step.compile(state, split).as_text())
            print("fsdp: gathers kernels, moves no activation")
        found = step(state, split)
        compare(found, expected)
        assert jax.tree.map(lambda leaf: leaf.sharding, found[0]) == shardings
        states[name] = found[0]
        print(f"{name}: equal")

    for source, target in [("fsdp", "one"), ("one", "fsdp"), ("fsdp", "data_tensor"), ("data_tensor", "all")]:
        folder = workdir / f"{source}_{target}"
        saver = Checkpointer(folder)
        saver.save(1, states[source], optimizer.partition, data={}, config={})
        saver.close()
        reader = Checkpointer(folder)
        restored = reader.restore(jax.tree.map(jax.numpy.zeros_like, states[target]), optimizer.partition).state
        reader.close()
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(restored), jax.device_get(states[source]))
        assert [a.sharding for a in jax.tree.leaves(restored)] == [a.sharding for a in jax.tree.leaves(states[target])]
        print(f"{source} -> {target}: restored")

    _, average = restore_params(workdir / "fsdp_one", ema=True)
    compare(average, expected[0].ema)
    mesh = parallel.make_mesh(**MESHES["all"])
    split = parallel.put_shared_batch(batch, mesh)
    for encode in method.encoders.values():
        spread = jax.jit(parallel.by_examples(encode, mesh), out_shardings=parallel.replicated(mesh))
        compare(spread(states["all"].ema, split), jax.jit(encode)(average, batch))
        compare(spread(parallel.on_mesh(average, mesh), split), jax.jit(encode)(average, batch))
    print("encoders: equal")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
