import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save

from mmjax import peft
from mmjax.convert import ConversionError
from mmjax.paths import flatten
from mmjax.peft.hf_format import read_tensors
from tests import golden

FILES = [case for case in golden.read_all() if case.function == "mmjax.peft.load_hf_adapter"]


@pytest.mark.parametrize("case", FILES, ids=lambda case: case.case)
def test_files_of_hugging_face_survive_a_round_trip(case):
    config, content = case.inputs["adapter_config"].item(), case.inputs["safetensors"].tobytes()
    written, tensors = peft.save_hf_adapter(peft.load_hf_adapter(config, content), config)
    assert json.loads(written) == json.loads(config)
    before, after = read_tensors(content), read_tensors(tensors)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert (tensor.shape, tensor.dtype) == (after[name].shape, after[name].dtype)
        np.testing.assert_array_equal(tensor, after[name])
    assert b'"format":"pt"' in tensors[:200]


def test_embeddings_have_names_of_their_own():
    rng = np.random.default_rng(0)
    pair = {"a": rng.normal(size=(5, 2)).astype(np.float32), "b": rng.normal(size=(2, 3)).astype(np.float32)}
    tree = {"model": {"embed_tokens": pair, "fc": pair, "table": pair}}
    config = {"peft_type": "LORA"}
    _, content = peft.save_hf_adapter(tree, config, embeddings=("**/embed_tokens", "**/table"))
    tensors = read_tensors(content)
    assert tensors["base_model.model.model.embed_tokens.lora_embedding_A"].shape == (2, 5)
    assert tensors["base_model.model.model.table.lora_embedding_B"].shape == (3, 2)
    assert tensors["base_model.model.model.fc.lora_A.weight"].shape == (2, 5)
    found = flatten(peft.load_hf_adapter(json.dumps(config), content))
    for path, leaf in flatten(tree).items():
        np.testing.assert_array_equal(found[path], leaf)


def test_bfloat16_stays_bfloat16():
    leaf = jnp.array([[1.5], [2.0]], jnp.bfloat16)
    files = peft.save_hf_adapter({"fc": {"a": leaf, "b": leaf.T}}, {"peft_type": "LORA"})
    found = peft.load_hf_adapter(*files)["fc"]["a"]
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, leaf)


@pytest.mark.parametrize(("modules", "leaf"), [(["fc"], "scale_in"), (".*fc", "scale_in"), ([], "scale_out")])
def test_one_by_one_ia3_vectors_are_told_apart_by_the_config(modules, leaf):
    config = json.dumps({"peft_type": "IA3", "feedforward_modules": modules})
    content = save({"base_model.model.block.fc.ia3_l": np.full((1, 1), 2.0, np.float32)})
    assert list(peft.load_hf_adapter(config, content)["block"]["fc"]) == [leaf]


def test_tensors_of_no_kind_are_refused_together():
    content = save({"base_model.model.fc.lokr_w1": np.zeros(1), "fc.weight": np.zeros(1)})
    with pytest.raises(ConversionError, match="is of no kind") as error:
        peft.load_hf_adapter("{}", content)
    assert sorted(problem.split()[0] for problem in error.value.problems) == [
        "base_model.model.fc.lokr_w1",
        "fc.weight",
    ]


def test_leaves_without_a_form_are_refused_together():
    tree = {"mlp": {"down": {"gate": np.zeros(2)}}, "blocks": {"fc": {"a": np.zeros((3, 2, 1))}}}
    with pytest.raises(ConversionError, match=r"mlp/down/gate \(2,\) has no form(.|\n)*blocks/fc/a"):
        peft.save_hf_adapter(tree, {"peft_type": "LORA"})
