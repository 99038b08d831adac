import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.methods.pretrained import pretrained
from mmjax.models import build_dual_encoder

TOWER = {"width": 16, "num_layers": 1, "num_heads": 2, "output_dim": 6}
PARTS = {
    "image": TOWER | {"patch_size": 8, "image_size": 16},
    "text": TOWER | {"vocab_size": 30, "context_length": 8},
}
BATCH = {
    "image": jnp.ones((2, 16, 16, 3)),
    "text": jnp.arange(16).reshape(2, 8),
    "text_mask": jnp.arange(8) < jnp.array([[8], [3]]),
}


@pytest.mark.parametrize("names", [("image",), ("text",), ("image", "text")])
def test_the_towers_that_are_there_embed(names):
    model = build_dual_encoder(**{name: PARTS[name] for name in names})
    method = pretrained(model)
    assert set(method.encoders) == set(names)
    params = method.init(jax.random.key(0), BATCH).params
    for name in names:
        inputs = {"image": (BATCH["image"],), "text": (BATCH["text"], BATCH["text_mask"])}[name]
        expected, _ = getattr(model, name).apply({"params": params[name]}, *inputs)
        np.testing.assert_allclose(method.encoders[name](params, BATCH), expected, rtol=1e-5, atol=1e-6)


def test_training_it_says_how_to_train_from_it():
    method = pretrained(build_dual_encoder(text=PARTS["text"]))
    with pytest.raises(ValueError, match=r"no loss to train.*config\.init_from, a workdir for each of text"):
        method.loss({}, {}, BATCH, jax.random.key(0), 0)
