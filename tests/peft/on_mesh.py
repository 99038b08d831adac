"""Run by `test_on_mesh.py` with eight devices: a step with adapters on meshes, against one device."""

import json

import jax
import numpy as np

from mmjax import parallel, peft
from mmjax.methods.clip import clip
from mmjax.models import build_dual_encoder
from mmjax.optim import build_optimizer
from mmjax.train import create_state, make_train_step
from mmjax.train.fit import CompiledStep

MESHES = {"data": {"data": 8}, "all": {"data": 2, "fsdp": 2, "tensor": 2}}

image = {"width": 16, "num_layers": 2, "num_heads": 2, "output_dim": 8, "image_size": 16, "scan": True, "remat": "full"}
text = {"width": 16, "num_layers": 1, "num_heads": 2, "output_dim": 8, "vocab_size": 32, "context_length": 6}
towers = {
    "image": peft.chain(peft.lora(["**/block*/attn/{query,value}", "**/mlp/fc1"], rank=4, dora=True), peft.vpt(2)),
    "text": peft.experts(2, 4),
}
method = peft.adapt_method(clip, build_dual_encoder("nano/8", image=image, text=text), towers)
draw = np.random.default_rng(0)
batch = {
    "image": draw.normal(size=(8, 16, 16, 3)).astype(np.float32),
    "text": draw.integers(0, 32, (8, 6)).astype(np.int32),
    "text_mask": np.arange(6) < draw.integers(3, 7, (8, 1)),
}
shapes = jax.eval_shape(method.init, jax.random.key(0), batch)
# The gradient itself is compared: the state of sgd with momentum is the first gradient.
optimizer = build_optimizer(shapes.params, name="sgd", learning_rate=0.1, momentum=0.9, trains=method.partition)
update = make_train_step(method, optimizer)


def initial(batch):
    return create_state(method.init(jax.random.key(0), batch), optimizer, key=jax.random.key(1))


def main():
    one = jax.make_mesh((1, 1, 1), parallel.AXES, devices=jax.devices()[:1])
    expected, _ = jax.jit(update)(jax.jit(initial, out_shardings=parallel.replicated(one))(batch), batch)
    results = {}
    for name, sizes in MESHES.items():
        mesh = parallel.make_mesh(**sizes)
        plan = parallel.plan_sharding(shapes.params, mesh, min_size=64)
        shardings = plan.shardings(jax.eval_shape(initial, batch))
        split = parallel.put_batch(batch, mesh)
        state = jax.jit(initial, out_shardings=shardings)(split)
        found, _ = CompiledStep(update, mesh, shardings)(state, split)
        close = jax.tree.map(
            lambda a, b: bool(np.allclose(a, b, rtol=1e-3, atol=2e-6)), *jax.device_get((found, expected))
        )
        pieces = [leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(found.trainable["adapter"])]
        results[name] = {"equal": all(jax.tree.leaves(close)), "split": not all(pieces)}
    print(json.dumps(results))


if __name__ == "__main__":
    main()
