import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.convert import (
    CONV,
    DENSE,
    ConversionError,
    Rule,
    dense,
    layer_norm,
    leading,
    multihead_attention,
    patch_dense,
    to_foreign,
    to_params,
)
from mmjax.models import Attention
from mmjax.paths import flatten


def test_dense_is_transposed_as_torch_linear_reads_it():
    kernel, x = np.arange(6.0).reshape(2, 3), np.array([1.0, -2.0])
    tensors = to_foreign({"fc": {"kernel": kernel, "bias": np.ones(3)}}, dense("fc", "fc"), expected=_tree("fc", 2, 3))
    np.testing.assert_array_equal(tensors["fc.weight"] @ x + tensors["fc.bias"], x @ kernel + 1)


def test_conv_is_laid_out_as_torch_conv_reads_it():
    kernel = np.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)  # Height, width, in, out.
    foreign = CONV.export(kernel)
    assert foreign.shape == (5, 4, 2, 3)
    assert foreign[4, 1, 0, 2] == kernel[0, 2, 1, 4]
    np.testing.assert_array_equal(CONV.load(foreign), kernel)


def test_index_is_carried_over_and_need_not_be_in_order():
    params = {f"block_{i}": {"ln": {"scale": np.full(2, i), "bias": np.zeros(2)}} for i in (10, 2)}
    params = {k: {"ln": {n: x.astype(np.float32) for n, x in v["ln"].items()}} for k, v in params.items()}
    tensors = to_foreign(params, layer_norm("block_{i}/ln", "layers.{i}.norm"), expected=params)
    assert tensors["layers.10.norm.weight"][0] == 10
    assert tensors["layers.2.norm.weight"][0] == 2


FUSED = (
    Rule("attn/{query,key,value}/kernel", "attn.in_proj_weight", DENSE),
    Rule("attn/{query,key,value}/bias", "attn.in_proj_bias"),
)


def test_fused_attention_joins_and_splits_in_the_order_of_the_pattern():
    rng = np.random.default_rng(0)
    params = {
        "attn": {
            # Sorted by name, as a restored tree is: the rule decides the order, not the tree.
            name: {"kernel": rng.normal(size=(3, 4)).astype(np.float32), "bias": rng.normal(size=4).astype(np.float32)}
            for name in ("key", "query", "value")
        }
    }
    tensors = to_foreign(params, FUSED, expected=params)
    assert {name: x.shape for name, x in tensors.items()} == {
        "attn.in_proj_weight": (12, 3),
        "attn.in_proj_bias": (12,),
    }
    np.testing.assert_array_equal(tensors["attn.in_proj_weight"][4:8], params["attn"]["key"]["kernel"].T)
    _assert_equal(to_params(tensors, FUSED, expected=params), params)


def test_tensors_lie_in_memory_as_they_read():
    tensors = to_foreign(
        {"fc": {"kernel": np.ones((2, 3)), "bias": np.ones(3)}}, dense("fc", "fc"), expected=_tree("fc", 2, 3)
    )
    assert all(x.flags.c_contiguous for x in tensors.values())


def test_scalars_stay_scalars():
    rule = (Rule("log_scale", "logit_scale"),)
    tensors = to_foreign({"log_scale": jnp.float32(2)}, rule, expected={"log_scale": np.float32(0)})
    assert tensors["logit_scale"].shape == ()
    assert to_params(tensors, rule, expected={"log_scale": np.float32(0)})["log_scale"].shape == ()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16, np.float64])
def test_every_float_goes_through_float32(dtype):
    values = np.array([0.5, 1.25, -3.0], dtype)
    rule = (Rule("bias", "b"),)
    tensors = to_foreign({"bias": values}, rule, expected={"bias": values})
    assert tensors["b"].dtype == np.float32
    params = to_params({"b": values}, rule, expected={"bias": values})
    assert params["bias"].dtype == jnp.float32
    np.testing.assert_array_equal(params["bias"], [0.5, 1.25, -3.0])


def test_export_lists_every_problem_at_once():
    expected = _tree("fc", 2, 3) | {"gamma": np.zeros(3)}
    params = {"fc": {"kernel": np.ones((3, 2)), "bais": np.ones(3)}, "count": np.int32(1)}
    with pytest.raises(ConversionError) as error:
        to_foreign(params, dense("fc", "fc"), expected=expected)
    text = str(error.value)
    assert "no rule for 'gamma'" in text
    assert "missing parameter 'fc/bias' (3,); did you mean 'fc/bais'" in text
    assert "parameter 'count' () has no place in the model" in text
    assert "parameter 'fc/kernel' has shape (3, 2), expected (2, 3)" in text
    assert "parameter 'count' has dtype int32, expected floating point" in text
    assert len(error.value.problems) == 7  # And 'gamma' is missing, 'fc/bais' left over.


def test_import_lists_every_problem_at_once_in_foreign_terms():
    tensors = {"fc.weight": np.ones((2, 3)), "fc.biases": np.ones(3), "position_ids": np.arange(3)}
    with pytest.raises(ConversionError) as error:
        to_params(tensors, dense("fc", "fc"), expected=_tree("fc", 2, 3), ignore=("*_ids",))
    assert error.value.problems == (
        "missing tensor 'fc.bias' (3,); did you mean 'fc.biases'?",
        "tensor 'fc.biases' (3,) has no place in the model",
        "tensor 'fc.weight' has shape (2, 3), expected (3, 2)",
    )


def test_two_rules_for_one_parameter_are_an_error():
    with pytest.raises(ConversionError, match="2 rules for 'bias'"):
        to_foreign({"bias": np.ones(1)}, [Rule("bias", "a"), Rule("bias", "b")], expected={"bias": np.ones(1)})


POSITIONS = (
    Rule("table[:1]", "class_position", leading()),
    Rule("table[1:4]", "patches", leading(2)),
    Rule("table[4:]", "registers"),
)


def test_rows_of_a_parameter_are_tensors_of_their_own():
    table = np.arange(10, dtype=np.float32).reshape(5, 2)
    tensors = to_foreign({"table": table}, POSITIONS[::-1], expected={"table": table})
    assert {name: x.shape for name, x in tensors.items()} == {
        "registers": (1, 2),
        "patches": (1, 1, 3, 2),
        "class_position": (1, 1, 2),
    }
    np.testing.assert_array_equal(tensors["patches"][0, 0], table[1:4])
    _assert_equal(to_params(tensors, POSITIONS, expected={"table": table}), {"table": table})


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        (POSITIONS[::2], "no rule for rows 1 to 4 of 'table'"),
        (POSITIONS[1:], "no rule for rows 0 to 1 of 'table'"),
        (POSITIONS[:2], "no rule for rows 4 to 5 of 'table'"),
        ((*POSITIONS, Rule("table[2:3]", "more")), "4 rules for 'table', expected one"),
        ((*POSITIONS, Rule("table", "more")), "4 rules for 'table', expected one"),
    ],
)
def test_rows_are_covered_once(rules, problem):
    table = np.zeros((5, 2), np.float32)
    with pytest.raises(ConversionError) as error:
        to_foreign({"table": table}, rules, expected={"table": table})
    assert error.value.problems == (problem,)


ABSENT = (Rule("qkv/bias", None), Rule("table[:1]", None), Rule("table[1:]", "patches"))


def test_what_has_no_tensor_is_zero():
    params = {"qkv": {"bias": np.zeros(3, np.float32)}, "table": np.float32([[0, 0], [1, 2]])}
    tensors = to_foreign(params, ABSENT, expected=params)
    assert list(tensors) == ["patches"]
    _assert_equal(to_params(tensors, ABSENT, expected=params), params)
    params = {"qkv": {"bias": np.float32([0, 0, 1])}, "table": np.float32([[0, 1], [1, 2]])}
    with pytest.raises(ConversionError) as error:
        to_foreign(params, ABSENT, expected=params)
    assert error.value.problems == (
        "parameter 'qkv/bias' is not zero, but the format has no tensor for it",
        "parameter 'table[0:1]' is not zero, but the format has no tensor for it",
    )


def test_two_parameters_for_one_tensor_are_an_error():
    params = {"a": np.ones(2, np.float32), "b": np.ones(2, np.float32)}
    with pytest.raises(ConversionError, match="2 rules fill tensor 'x', expected one"):
        to_foreign(params, [Rule("a", "x"), Rule("b", "x")], expected=params)


def test_multihead_attention_is_what_torch_computes():
    torch = pytest.importorskip("torch", reason="compares with torch")
    rng = np.random.default_rng(0)
    module, x = torch.nn.MultiheadAttention(6, 2, batch_first=True), rng.normal(size=(2, 5, 6)).astype(np.float32)
    model = Attention(2)
    params = model.init(jax.random.key(0), x)["params"]
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), params)
    tensors = to_foreign({"attn": params}, multihead_attention("attn", "attn"), expected={"attn": params})
    module.load_state_dict({name.removeprefix("attn."): torch.from_numpy(x) for name, x in tensors.items()})
    theirs, _ = module(*[torch.from_numpy(x)] * 3)
    np.testing.assert_allclose(model.apply({"params": params}, x), theirs.detach(), atol=1e-5)


def test_patch_dense_is_a_convolution_over_flattened_patches():
    rng = np.random.default_rng(0)
    kernel, image = rng.normal(size=(2, 2, 3, 5)), rng.normal(size=(2, 2, 3))
    weight = patch_dense(2).export(kernel)
    np.testing.assert_allclose(weight @ image.ravel(), np.einsum("hwc,hwcd->d", image, kernel))
    np.testing.assert_array_equal(patch_dense(2).load(weight), kernel)


def test_a_stack_of_which_a_part_is_missing_has_no_rule():
    params = {"attn": {"query": {"kernel": np.ones((2, 2)), "bias": np.ones(2)}}}
    with pytest.raises(ConversionError, match="no rule for 'attn/query/kernel'"):
        to_foreign(params, FUSED, expected=params)


def _tree(name: str, rows: int, columns: int) -> dict:
    return {name: {"kernel": np.zeros((rows, columns)), "bias": np.zeros(columns)}}


def _assert_equal(found, wanted):
    found, wanted = flatten(found), flatten(wanted)
    assert list(found) == list(wanted)
    for path, leaf in wanted.items():
        np.testing.assert_array_equal(found[path], leaf)
