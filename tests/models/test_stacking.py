import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.models import stack_layers, unstack_layers


def tree():
    def tower(depth):
        return {f"block_{i}": {"attn": {"kernel": jnp.full((2, 3), i)}, "bias": jnp.full(4, -i)} for i in range(depth)}

    return {
        "image": {"encoder": tower(12), "proj": jnp.ones(2)},
        "text": {"encoder": tower(2)},
        "log_scale": jnp.ones(()),
    }


def test_there_and_back_is_exact():
    params = tree()
    stacked = stack_layers(params)
    assert stacked["image"]["encoder"]["blocks"]["attn"]["kernel"].shape == (12, 2, 3)
    # Layer 10 follows layer 9, not layer 1.
    np.testing.assert_array_equal(stacked["image"]["encoder"]["blocks"]["attn"]["kernel"][:, 0, 0], np.arange(12))
    jax.tree.map(np.testing.assert_array_equal, unstack_layers(stacked), params)


def test_shapes_without_arrays():
    shapes = jax.eval_shape(stack_layers, tree())
    assert shapes["text"]["encoder"]["blocks"]["bias"].shape == (2, 4)


def test_a_missing_layer_is_named():
    params = tree()["image"]["encoder"]
    del params["block_3"]
    with pytest.raises(ValueError, match=r"found layers \[0, 1, 2, 4, .*expected 0 to 10 without a gap"):
        stack_layers(params)


def test_layers_of_different_structure_do_not_stack():
    with pytest.raises(ValueError):
        stack_layers({"block_0": {"a": jnp.ones(2)}, "block_1": {"b": jnp.ones(2)}})
