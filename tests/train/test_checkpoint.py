import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.train import Checkpointer, CheckpointError, create_state, inspect, make_train_step, restore_params
from tests.train.toy import toy_batch, toy_method, toy_optimizer


@pytest.fixture(scope="module")
def trained():
    method = toy_method(partition=(("shift", False), ("**", True)))
    variables = method.init(jax.random.key(1), toy_batch())
    optimizer = toy_optimizer(variables.params, name="adam", learning_rate=0.1, trains=method.partition)
    state = create_state(variables, optimizer, key=jax.random.key(2), ema=True)
    step = jax.jit(make_train_step(method, optimizer, ema_decay=0.5))
    for seed in range(2):
        state, _ = step(state, toy_batch(seed))
    return state, optimizer.partition


@pytest.fixture
def saved(tmp_path, trained):
    state, partition = trained
    checkpointer = Checkpointer(tmp_path / "checkpoints", every_steps=10, keep=2)
    for step in (1, 2, 3):
        checkpointer.save(step, state, partition, data={"position": step}, config={"seed": 0})
    checkpointer.close()
    return tmp_path / "checkpoints"


def test_restored_equals_saved_in_values_and_types(saved, trained):
    state, partition = trained
    checkpointer = Checkpointer(saved)
    restored = checkpointer.restore(jax.tree.map(jnp.zeros_like, state), partition)
    checkpointer.close()
    chex.assert_trees_all_equal(restored.state, state)
    assert jax.tree.structure(restored.state) == jax.tree.structure(state)
    assert restored.data == {"position": 3}


def test_only_the_newest_are_kept(saved, trained):
    checkpointer = Checkpointer(saved)
    assert checkpointer.latest == 3
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 1 in .*; there are \[2, 3\]"):
        checkpointer.restore(*trained, step=1)
    checkpointer.close()


def test_a_step_that_is_saved_is_left_alone(saved, trained):
    checkpointer = Checkpointer(saved)
    checkpointer.save(3, *trained, data={"position": 99}, config={})
    assert checkpointer.restore(*trained).data == {"position": 3}
    checkpointer.close()


@pytest.mark.parametrize(("step", "due"), [(10, True), (11, False), (20, True)])
def test_policy_by_steps(tmp_path, step, due):
    checkpointer = Checkpointer(tmp_path, every_steps=10)
    assert checkpointer.due(step) is due
    checkpointer.close()


def test_policy_by_minutes(tmp_path):
    checkpointer = Checkpointer(tmp_path, every_steps=10, every_minutes=1e-9)
    assert checkpointer.due(1)
    checkpointer.close()


def test_another_tree_is_refused_with_the_difference(saved, trained):
    state, partition = trained
    wider = state.replace(trainable={"head": {"kernel": jnp.zeros(5)}})
    checkpointer = Checkpointer(saved)
    expected = r"params/head/kernel: \(3,\) float32 in the checkpoint, \(5,\) float32 in this run"
    with pytest.raises(CheckpointError, match=expected):
        checkpointer.restore(wider, partition)
    with pytest.raises(CheckpointError, match="only in the checkpoint: training/ema/head/kernel"):
        checkpointer.restore(state.replace(ema=None), partition)
    more = state.replace(stats=state.stats | {"queue": jnp.zeros(4)})
    with pytest.raises(CheckpointError, match=r"only in this run: training/stats/queue \(4,\)"):
        checkpointer.restore(more, partition)
    checkpointer.close()


def test_parameters_alone_and_from_the_average(saved, trained):
    state, partition = trained
    step, params = restore_params(saved)
    assert step == 3
    chex.assert_trees_all_equal(params, partition.join(state.trainable, state.frozen))
    _, average = restore_params(saved, ema=True)
    np.testing.assert_array_equal(average["head"]["kernel"], state.ema["head"]["kernel"])
    np.testing.assert_array_equal(average["shift"], state.frozen["shift"])


def test_parameters_of_another_tree_are_refused(saved):
    with pytest.raises(CheckpointError, match="only in this run: params/tail"):
        restore_params(saved, {"head": {"kernel": jnp.zeros(3)}, "shift": jnp.zeros(()), "tail": jnp.zeros(2)})


def test_inspect_lists_arrays_without_loading(saved):
    found = inspect(saved)
    assert found["params/head/kernel"] == ((3,), "float32")
    assert found["training/step"] == ((), "int32")


def test_no_checkpoint_is_one_line(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoints: .* is no folder"):
        restore_params(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        restore_params(tmp_path)
