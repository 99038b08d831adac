"""BERT, as a module of its own and as the text tower of a dual encoder, against `transformers.BertModel`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from mmjax.intercept import edit, tap
from mmjax.models import BertEncoder, TextTransformer, stack_layers
from mmjax.paths import unflatten
from tests.models.random_params import random_params

IDS = np.array([[1, 7, 3, 9, 2, 0], [1, 4, 2, 0, 0, 0]])
MASK = np.array([[True] * 5 + [False], [True] * 3 + [False] * 3])
TYPES = np.array([[0, 0, 0, 1, 1, 0], [0, 1, 1, 0, 0, 0]])
TOWER = TextTransformer(
    vocab_size=11,
    context_length=8,
    width=12,
    num_layers=2,
    num_heads=3,
    output_dim=None,
    mlp_ratio=20 / 12,
    norm_position="post",
    type_vocab=2,
    causal=False,
    ln_eps=1e-12,
    pool="pooler",
)
KERNELS = ("query", "key", "value", "fc1", "fc2", "out", "pooler")


@functools.cache
def bert(act):
    """`transformers.BertModel` with random parameters, norms and biases too."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=11,
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=20,
        max_position_embeddings=8,
        hidden_act=act,
    )
    model = BertModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.3, 0.5)
    return model


@functools.cache
def theirs(act):
    """Tokens and pooled embedding of `bert(act)`."""
    ids, mask, types = (torch.from_numpy(x.astype(np.int64)) for x in (IDS, MASK, TYPES))
    with torch.inference_mode():
        found = bert(act)(ids, attention_mask=mask, token_type_ids=types)
    return found.last_hidden_state.numpy(), found.pooler_output.numpy()


def our_params(act, embeddings, stem, pooler=True):
    """The parameters of `bert(act)` under our names; `embeddings` are the four before the layers."""
    layer = {
        "attention.self.query": "attn/query",
        "attention.self.key": "attn/key",
        "attention.self.value": "attn/value",
        "attention.output.dense": "attn/out",
        "attention.output.LayerNorm": "ln_1",
        "intermediate.dense": "mlp/fc1",
        "output.dense": "mlp/fc2",
        "output.LayerNorm": "ln_2",
    }
    names = dict(
        zip(
            [f"embeddings.{n}" for n in ("word_embeddings", "position_embeddings", "token_type_embeddings")],
            embeddings,
            strict=False,
        )
    )
    names["embeddings.LayerNorm"] = embeddings[3]
    names |= {f"encoder.layer.{i}.{a}": f"{stem}block_{i}/{b}" for i in range(2) for a, b in layer.items()}
    names |= {"pooler.dense": "pooler"} if pooler else {}
    flat = {}
    for key, tensor in bert(act).state_dict().items():
        module, kind = key.rsplit(".", 1)
        if module not in names:
            continue
        path, value = names[module], tensor.numpy()
        if module.startswith("embeddings.") and kind == "weight" and "LayerNorm" not in module:
            flat[path] = value
        elif kind == "weight":
            norm = "LayerNorm" in module
            flat[f"{path}/{'scale' if norm else 'kernel'}"] = value if norm else value.T
        else:
            flat[f"{path}/bias"] = value
    return unflatten(flat)


def tower_params(act, pooler=True):
    embeddings = ("token_embedding/embedding", "position_embedding", "type_embedding", "ln_embed")
    return our_params(act, embeddings, "encoder/", pooler)


def same_tree(params, module, *inputs):
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, shapes)


@pytest.mark.parametrize(("act", "ours"), [("gelu", "gelu"), ("gelu_pytorch_tanh", "gelu_tanh")])
def test_the_tower_is_that_of_transformers(act, ours):
    tower, params = TOWER.clone(act=ours), tower_params(act)
    same_tree(params, tower, IDS)
    embeds, intermediates = jax.jit(tower.apply)({"params": params}, IDS, MASK, type_ids=TYPES)
    tokens, pooled = theirs(act)
    np.testing.assert_allclose(intermediates["tokens"][MASK], tokens[MASK], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(intermediates["blocks"][-1][MASK], tokens[MASK], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(embeds, pooled, rtol=1e-4, atol=1e-5)


def test_the_encoder_is_that_of_transformers():
    encoder = BertEncoder(vocab_size=11, features=12, num_layers=2, num_heads=3, mlp_dim=20, max_positions=8)
    embeddings = ("word_embeddings/embedding", "position_embeddings/embedding", "type_embeddings/embedding")
    params = our_params("gelu_pytorch_tanh", (*embeddings, "ln_embeddings"), "")
    same_tree(params, encoder, IDS)
    found = jax.jit(encoder.apply)({"params": params}, IDS, MASK, TYPES)
    tokens, pooled = theirs("gelu_pytorch_tanh")
    np.testing.assert_allclose(found["tokens"][MASK], tokens[MASK], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["pooled"], pooled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pool", ["first", "mean"])
def test_other_poolings_read_the_tokens_that_are_no_padding(pool):
    params = tower_params("gelu", pooler=False)
    embeds, _ = jax.jit(TOWER.clone(pool=pool).apply)({"params": params}, IDS, MASK, type_ids=TYPES)
    tokens, _ = theirs("gelu")
    expected = [row[valid].mean(0) if pool == "mean" else row[0] for row, valid in zip(tokens, MASK, strict=True)]
    np.testing.assert_allclose(embeds, expected, rtol=1e-4, atol=1e-5)


def test_a_type_is_zero_unless_it_is_given():
    params = {"params": tower_params("gelu")}
    apply = jax.jit(TOWER.apply)
    np.testing.assert_array_equal(apply(params, IDS, MASK)[0], apply(params, IDS, MASK, type_ids=0 * TYPES)[0])
    assert bool(jnp.any(apply(params, IDS, MASK)[0] != apply(params, IDS, MASK, type_ids=TYPES)[0]))


@pytest.mark.parametrize("settings", [{"scan": True}, {"scan": True, "remat": "full"}])
def test_scanned_and_rematerialised_layers_compute_the_same(settings):
    params = tower_params("gelu")
    own = stack_layers(params) if settings.get("scan") else params

    def loss(tower):
        return jax.jit(jax.value_and_grad(lambda p: jnp.sum(tower.apply({"params": p}, IDS, MASK)[0] ** 2)))

    value, gradients = loss(TOWER)(params)
    found, own_gradients = loss(TOWER.clone(**settings))(own)
    np.testing.assert_allclose(found, value, rtol=1e-5)
    if settings.get("scan"):
        gradients = stack_layers(gradients)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), own_gradients, gradients)


def test_attention_can_be_tapped_and_edited():
    params = {"params": tower_params("gelu")}
    _, values = jax.jit(tap(TOWER.apply, "encoder/*/attn/probs"))(params, IDS, MASK)
    assert {name: value.shape for name, value in values.items()} == {
        f"encoder/block_{i}/attn/probs": (2, 3, 6, 6) for i in range(2)
    }
    np.testing.assert_allclose(values["encoder/block_1/attn/probs"].sum(-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(values["encoder/block_1/attn/probs"][1, :, :, 3:], 0.0)
    silent = edit(TOWER.apply, {"encoder/block_1/mlp": lambda value, call: 0 * value})
    assert bool(jnp.any(jax.jit(silent)(params, IDS, MASK)[0] != jax.jit(TOWER.apply)(params, IDS, MASK)[0]))


def test_dropout_reaches_embeddings_and_layers():
    tower = TOWER.clone(dropout_rate=0.5, num_layers=1)
    params = random_params(tower, IDS)
    found = [
        tower.apply({"params": params}, IDS, deterministic=False, rngs={"dropout": jax.random.key(seed)})[0]
        for seed in (0, 1)
    ]
    assert bool(jnp.any(found[0] != found[1]))


@pytest.mark.parametrize(
    ("module", "inputs", "error", "message"),
    [
        (TOWER.clone(type_vocab=0), {"type_ids": TYPES}, ValueError, "type_ids are given, but type_vocab is 0"),
        (TOWER, {"type_ids": TYPES[:, :3]}, ValueError, r"token_ids \(2, 6\), type_ids \(2, 3\)"),
        (TOWER, {"type_ids": TYPES * 1.0}, TypeError, "type_ids has dtype float"),
        (TOWER.clone(norm_position="mid"), {}, ValueError, "norm_position is 'mid', expected one of 'pre', 'post'"),
        (BertEncoder(11, 12, 1, 3, 20, 4), {}, ValueError, "texts have 6 tokens, more than max_positions 4"),
    ],
)
def test_bad_input_is_named(module, inputs, error, message):
    with pytest.raises(error, match=message):
        jax.eval_shape(functools.partial(module.init, **inputs), jax.random.key(0), IDS)
