import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from mmjax.convert import ConversionError
from mmjax.convert.hf_folder import (
    read_json,
    read_preprocessing,
    read_tensors,
    read_tokenizer,
    write_preprocessing,
    write_tensors,
    write_tokenizer,
)
from mmjax.data import ImageSpec, Tokenizer, clip_bpe, train_bpe

TEXTS = ["A small red circle", "", "café 東京 <|x|>", "circle " * 30]


@pytest.mark.parametrize(
    "spec",
    [
        ImageSpec(32),
        ImageSpec(7, mean=(0.5, 0.4, 0.3), std=(0.25, 0.5, 1.0), resize="bilinear"),
        ImageSpec(16, resize="lanczos", fit="squash"),
    ],
)
def test_preprocessing_round_trips(tmp_path, spec):
    write_preprocessing(tmp_path, spec, processor="CLIPProcessor")
    assert read_preprocessing(tmp_path) == spec


OLD = {"size": 224, "crop_size": 224, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "resample": 3}


def test_preprocessing_of_old_and_of_nested_files(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(OLD))
    assert read_preprocessing(tmp_path) == ImageSpec(224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    # Without images in it, a processor's own file says nothing.
    (tmp_path / "processor_config.json").write_text('{"processor_class": "CLIPProcessor"}')
    assert read_preprocessing(tmp_path).size == 224
    nested = {"image_processor": OLD | {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}}
    (tmp_path / "processor_config.json").write_text(json.dumps(nested))
    assert read_preprocessing(tmp_path).size == 32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 256}, "expected a square of one side"),
        ({"size": {"height": 224, "width": 128}, "do_center_crop": False}, "expected a square of one side"),
        ({"do_center_crop": False}, "expected a square of one side"),
        ({"do_normalize": False}, "do_normalize is false"),
        ({"rescale_factor": 1 / 127.5}, "expected 1/255"),
        ({"resample": 4}, "resample is 4"),
    ],
)
def test_preprocessing_that_cannot_be_taken_over(tmp_path, change, message):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(OLD | change))
    with pytest.raises(ConversionError, match=message):
        read_preprocessing(tmp_path)


def test_preprocessing_lists_every_problem(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text('{"size": 224, "crop_size": 192, "do_resize": false}')
    with pytest.raises(ConversionError) as error:
        read_preprocessing(tmp_path)
    assert len(error.value.problems) == 4


@pytest.mark.parametrize("lowercase", [False, True])
def test_tokenizer_round_trips(tmp_path, lowercase):
    tokenizer = train_bpe(TEXTS * 3, vocab_size=280, lowercase=lowercase)
    write_tokenizer(tmp_path, tokenizer, context_length=12, processor="CLIPProcessor")
    _assert_same(read_tokenizer(tmp_path), tokenizer)


def test_clip_tokenizer_round_trips_and_pads_with_the_end_token(tmp_path):
    (tmp_path / "merges.txt").write_text("#version: 0.2\nr e\nre d</w>\n")
    tokenizer = clip_bpe(tmp_path / "merges.txt")
    write_tokenizer(tmp_path, tokenizer, context_length=12, processor="CLIPProcessor")
    _assert_same(read_tokenizer(tmp_path), tokenizer)
    # CLIP pads with "!", which must stay a word.
    assert read_json(tmp_path / "tokenizer_config.json")["pad_token"] == "<|endoftext|>"


def test_tokenizer_of_a_vocabulary_and_its_merges(tmp_path):
    (tmp_path / "merges.txt").write_text("#version: 0.2\nr e\nre d</w>\n")
    tokenizer = clip_bpe(tmp_path / "merges.txt")
    (tmp_path / "vocab.json").write_text(json.dumps(tokenizer.backend.get_vocab()))
    _assert_same(read_tokenizer(tmp_path), tokenizer)


def test_tokenizer_without_files(tmp_path):
    with pytest.raises(ConversionError, match=r"neither tokenizer.json nor vocab.json"):
        read_tokenizer(tmp_path)


def test_tensors_are_read_from_shards(tmp_path):
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "model-1.safetensors")
    save_file({"b": np.asarray(jnp.full(3, 0.5, jnp.bfloat16))}, tmp_path / "model-2.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    tensors = read_tensors(tmp_path)
    assert tensors["a"].tolist() == [1, 1]
    assert tensors["b"].astype(np.float32).tolist() == [0.5, 0.5, 0.5]
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(ConversionError, match=r"no model-2.safetensors"):
        read_tensors(tmp_path)


def test_tensors_are_as_readable_as_other_files(tmp_path):
    write_tensors(tmp_path, {"a": np.ones(1, np.float32)})
    (tmp_path / "other").touch()
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_missing_or_damaged_json(tmp_path):
    (tmp_path / "config.jsn").touch()
    with pytest.raises(ConversionError, match=r"no config.json; did you mean 'config.jsn'"):
        read_json(tmp_path / "config.json")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConversionError, match=r"config.json is no JSON"):
        read_json(tmp_path / "config.json")


def _assert_same(found: Tokenizer, wanted: Tokenizer) -> None:
    assert (found.bos_id, found.eos_id, found.vocab_size) == (wanted.bos_id, wanted.eos_id, wanted.vocab_size)
    ids, mask = found.encode(TEXTS, length=12)
    wanted_ids, wanted_mask = wanted.encode(TEXTS, length=12)
    np.testing.assert_array_equal(mask, wanted_mask)
    np.testing.assert_array_equal(ids[mask], wanted_ids[mask])
