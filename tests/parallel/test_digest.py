import jax
import jax.numpy as jnp
import numpy as np

from mmjax.parallel import params_hash


def test_the_hash_sees_values_paths_shapes_and_types():
    tree = {"a": np.arange(4, dtype=np.float32), "b": {"c": jnp.float32(1)}}
    others = [
        tree | {"a": np.array([0, 1, 2, 4], np.float32)},
        tree | {"a": np.arange(4, dtype=np.int32)},
        tree | {"a": np.arange(4, dtype=np.float32).reshape(2, 2)},
        tree | {"b": {"d": jnp.float32(1)}},
        {"a": tree["a"]},
        tree | {"a": np.array([-0.0, 1, 2, 3], np.float32)},
    ]
    assert len({params_hash(other) for other in [tree, *others]}) == 7
    assert params_hash(jax.tree.map(jnp.asarray, tree)) == params_hash(tree)
