import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.models import VisionTransformer
from mmjax.ops import resize_positions, sincos_position_2d
from mmjax.paths import flatten
from tests.models.random_params import random_params

KEY = jax.random.key(0)
IMAGES = jax.random.normal(KEY, (2, 8, 12, 3))
SETTINGS = {"patch_size": 4, "width": 8, "num_layers": 1, "num_heads": 2, "output_dim": 5}


def shapes(**settings):
    """Parameters, embeddings and intermediates, all as shapes."""
    model = VisionTransformer(**SETTINGS | settings)
    (embeds, intermediates), variables = jax.eval_shape(model.init_with_output, KEY, IMAGES)
    return jax.tree.map(jnp.shape, (flatten(variables["params"]), embeds, intermediates))


@pytest.fixture(scope="module")
def full():
    """A tower with registers, and its outputs."""
    model = VisionTransformer(**SETTINGS, num_registers=3, pool="avg")
    params = {"params": random_params(model, IMAGES)}
    return model, params, jax.jit(model.apply)(params, IMAGES)


def positions(**settings):
    """Parameters and intermediates of black images through blocks that add nothing: the final norm of the positions."""
    plain = {"output_dim": None, "pool": "none", "class_token": False, "pre_norm": False, "layer_scale": 0.0}
    model = VisionTransformer(**SETTINGS | plain | settings)
    params = random_params(model, IMAGES)
    identity = {"scale": np.ones(8), "bias": np.zeros(8)}
    params["encoder"]["block_0"] |= {"gamma_1": np.zeros(8), "gamma_2": np.zeros(8)}
    params |= {"ln_post": identity}
    return params, jax.jit(model.apply)({"params": params}, jnp.zeros_like(IMAGES))[1]


def norm(x):
    x = np.asarray(x, np.float64)
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def test_parameters_of_clip():
    block = {f"attn/{name}/kernel": (8, 8) for name in ("query", "key", "value", "out")}
    block |= {f"attn/{name}/bias": (8,) for name in ("query", "key", "value", "out")}
    block |= {f"{name}/{part}": (8,) for name in ("ln_1", "ln_2") for part in ("scale", "bias")}
    block |= {"mlp/fc1/kernel": (8, 32), "mlp/fc1/bias": (32,), "mlp/fc2/kernel": (32, 8), "mlp/fc2/bias": (8,)}
    expected = {f"encoder/block_0/{name}": shape for name, shape in block.items()}
    expected |= {f"{name}/{part}": (8,) for name in ("ln_pre", "ln_post") for part in ("scale", "bias")}
    expected |= {"patch_embed/kernel": (4, 4, 3, 8), "class_embedding": (8,), "position_embedding": (7, 8)}
    assert shapes()[0] == expected | {"proj/kernel": (8, 5)}


@pytest.mark.parametrize(
    ("settings", "added", "removed"),
    [
        ({"class_token": False, "pool": "avg"}, {"position_embedding"}, {"class_embedding"}),
        ({"num_registers": 2}, {"register_embedding"}, set()),
        ({"position": "sincos"}, set(), {"position_embedding"}),
        ({"pre_norm": False}, set(), {"ln_pre/scale", "ln_pre/bias"}),
        ({"patch_bias": True, "proj_bias": True}, {"patch_embed/bias", "proj/bias"}, set()),
        ({"output_dim": None}, set(), {"proj/kernel"}),
        ({"layer_scale": 0.1}, {"encoder/block_0/gamma_1", "encoder/block_0/gamma_2"}, set()),
        ({"pool": "pooler"}, {"pooler/kernel", "pooler/bias"}, set()),
        ({"pool": "map"}, {"attn_pool/probe", "attn_pool/attn/query/kernel", "attn_pool/mlp/fc1/kernel"}, set()),
        ({"act": "swiglu"}, {f"encoder/block_0/mlp/{name}/kernel" for name in ("gate", "up", "down")}, set()),
        ({"scan": True}, {"encoder/blocks/ln_1/scale"}, {"encoder/block_0/ln_1/scale"}),
    ],
)
def test_settings_add_and_remove_parameters(settings, added, removed):
    clip, other = set(shapes()[0]), set(shapes(**settings)[0])
    assert added <= other
    assert removed <= clip
    assert not removed & other


@pytest.mark.parametrize(
    ("settings", "embeds", "pooled"),
    [
        ({"pool": "tok"}, (2, 5), (2, 8)),
        ({"pool": "pooler"}, (2, 5), (2, 8)),
        ({"pool": "avg", "num_registers": 2}, (2, 5), (2, 8)),
        ({"pool": "map", "class_token": False}, (2, 5), (2, 8)),
        ({"pool": "none", "num_registers": 2, "output_dim": None}, (2, 6, 8), (2, 6, 8)),
    ],
)
def test_shapes(settings, embeds, pooled):
    num_prefix = settings.get("class_token", True) + settings.get("num_registers", 0)
    assert shapes(**settings)[1:] == (
        embeds,
        {"tokens": (2, 6, 8), "prefix": (2, num_prefix, 8), "pooled": pooled, "blocks": ((2, 6 + num_prefix, 8),)},
    )


def test_mean_pooling_leaves_class_token_and_registers_out(full):
    _, params, (embeds, intermediates) = full
    pooled = np.mean(intermediates["tokens"], axis=1)
    np.testing.assert_allclose(intermediates["pooled"], pooled, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(embeds, pooled @ params["params"]["proj"]["kernel"], rtol=1e-4, atol=1e-6)


def test_pooler_is_a_layer_on_the_class_token():
    model = VisionTransformer(**SETTINGS | {"output_dim": None, "pool": "pooler", "num_registers": 1})
    params = random_params(model, IMAGES)
    embeds, intermediates = jax.jit(model.apply)({"params": params}, IMAGES)
    layer = params["pooler"]
    np.testing.assert_allclose(
        embeds, np.tanh(intermediates["prefix"][:, 0] @ layer["kernel"] + layer["bias"]), atol=1e-6
    )


def test_tokens_follow_the_prefix(full):
    _, params, (_, intermediates) = full
    joined = jnp.concatenate([intermediates["prefix"], intermediates["tokens"]], axis=1)
    ln_post = params["params"]["ln_post"]
    expected = norm(intermediates["blocks"][-1]) * ln_post["scale"] + ln_post["bias"]
    np.testing.assert_allclose(joined, expected, rtol=1e-4, atol=1e-5)


def test_registers_have_no_position():
    params, intermediates = positions(class_token=True, num_registers=2)
    table = params["position_embedding"]
    prefix = jnp.concatenate([params["class_embedding"][None] + table[:1], params["register_embedding"]])
    np.testing.assert_allclose(intermediates["prefix"][0], norm(prefix), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(intermediates["tokens"][0], norm(table[1:]), rtol=1e-4, atol=1e-5)


def test_sincos_positions_are_row_and_column_on_oblong_grids():
    _, intermediates = positions(position="sincos")
    # A grid of 2 rows and 3 columns is the upper part of one of 3 rows and 3 columns.
    square = sincos_position_2d(3, 3, 8)
    np.testing.assert_allclose(intermediates["tokens"][0], norm(square[:6]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("image_size", "source"), [(8, (2, 2)), ((12, 4), (3, 1)), ((8, 12), (2, 3))])
@pytest.mark.parametrize("method", ["bicubic_antialias", "bicubic"])
def test_learned_positions_are_resized(image_size, source, method):
    params, intermediates = positions(image_size=image_size, position_resize=method)
    assert params["position_embedding"].shape == (source[0] * source[1], 8)
    table = resize_positions(params["position_embedding"], source=source, target=(2, 3), method=method)
    np.testing.assert_allclose(intermediates["tokens"][0], norm(table), rtol=1e-4, atol=1e-5)


def test_bfloat16_compute_keeps_parameters_and_stays_near(full):
    model, params, (expected, _) = full
    half = model.clone(dtype="bfloat16")
    assert {x.dtype for x in jax.tree.leaves(jax.eval_shape(half.init, KEY, IMAGES))} == {jnp.dtype("float32")}
    embeds, intermediates = jax.jit(half.apply)(params, IMAGES)
    assert {x.dtype for x in jax.tree.leaves((embeds, intermediates))} == {jnp.dtype("bfloat16")}
    error = jnp.linalg.norm(embeds.astype(jnp.float32) - expected) / jnp.linalg.norm(expected)
    assert 0 < float(error) < 0.02


def test_parameters_take_param_dtype():
    model = VisionTransformer(**SETTINGS, param_dtype=jnp.bfloat16, pool="map", num_registers=1, layer_scale=0.1)
    variables = jax.eval_shape(model.init, KEY, IMAGES)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize(
    ("settings", "images", "error", "message"),
    [
        ({}, jnp.ones((8, 8, 3)), ValueError, r"images has shape \(8, 8, 3\), expected 4 axes"),
        ({}, jnp.ones((1, 3, 8, 8)), ValueError, r"shape \(1, 3, 8, 8\), expected \[B, H, W, 3\]"),
        ({}, jnp.ones((1, 8, 10, 3)), ValueError, "8 x 10 pixels are not divisible by patch_size 4; resize"),
        ({}, jnp.ones((1, 8, 8, 3), jnp.uint8), TypeError, "dtype uint8, expected floating numbers; normalise"),
        ({"pool": "cls"}, IMAGES, ValueError, "pool is 'cls', expected one of 'tok', 'pooler', 'avg', 'map', 'none'"),
        ({"position_resize": "cubic"}, IMAGES, ValueError, "position_resize is 'cubic', expected one of 'bicubic_anti"),
        ({"position": "rope"}, IMAGES, ValueError, "position is 'rope', expected one of 'learned', 'sincos'"),
        ({"class_token": False}, IMAGES, ValueError, "pool 'tok' reads the class token, but class_token is False"),
        ({"image_size": 10}, IMAGES, ValueError, r"image_size \(10, 10\) is not divisible by patch_size 4"),
    ],
)
def test_bad_input_is_named(settings, images, error, message):
    with pytest.raises(error, match=f"VisionTransformer: .*{message}"):
        jax.eval_shape(VisionTransformer(**SETTINGS | settings).init, KEY, images)


def test_another_size_without_image_size_names_the_fix(full):
    model, params, _ = full
    with pytest.raises(ValueError, match=r"2 x 2 patches, but position_embedding has 7 rows; set image_size"):
        jax.eval_shape(model.apply, params, IMAGES[:, :8, :8])
