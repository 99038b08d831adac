import json

import numpy as np
import pytest

from mmjax.convert import ConversionError
from mmjax.convert.hf_folder import read_preprocessing, read_tokenizer, write_preprocessing, write_tokenizer
from mmjax.convert.probe import fixed_images
from mmjax.convert.source import read_json
from mmjax.data import ImageSpec, Tokenizer, clip_bpe, normalize, resize_as, train_bpe

TEXTS = ["A small red circle", "", "café 東京 <|x|>", "circle " * 30]


@pytest.mark.parametrize(
    "spec",
    [
        ImageSpec(32),
        ImageSpec(7, mean=(0.5, 0.4, 0.3), std=(0.25, 0.5, 1.0), resize="bilinear"),
        ImageSpec(16, resize="lanczos", fit="squash"),
        ImageSpec(14, scaled_size=16),
        ImageSpec(14, fit="squash", scaled_size=16),
    ],
)
def test_preprocessing_round_trips(tmp_path, spec):
    write_preprocessing(tmp_path, spec, processor="CLIPProcessor")
    assert read_preprocessing(tmp_path) == spec


SQUASHED = ImageSpec(24, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), resize="bilinear", fit="squash")


@pytest.mark.parametrize(
    "kind", ["BitImageProcessor", "CLIPImageProcessor", "SiglipImageProcessor", "ViTImageProcessor"]
)
@pytest.mark.parametrize(
    "spec",
    [ImageSpec(24), SQUASHED, ImageSpec(24, scaled_size=29), SQUASHED._replace(scaled_size=29)],
    ids=["crop", "squash", "scaled, then cropped", "squashed, then cropped"],
)
def test_preprocessing_of_every_class_is_what_its_class_does(tmp_path, kind, spec):
    write_preprocessing(tmp_path, spec, kind=kind)
    assert read_preprocessing(tmp_path) == spec
    transformers = pytest.importorskip("transformers", reason="runs the classes of transformers")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    # Of classes that cannot crop, CLIP's stands in.
    able = spec == SQUASHED or kind in ("BitImageProcessor", "CLIPImageProcessor")
    assert type(processor).__name__ == f"{kind if able else 'CLIPImageProcessor'}Pil"
    pictures = fixed_images(24)
    theirs = processor(pictures, return_tensors="np")["pixel_values"].transpose(0, 2, 3, 1)
    ours = normalize(np.stack([resize_as(picture, spec) for picture in pictures]), spec)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_classes_that_do_not_crop_leave_that_out(tmp_path):
    config = {
        "image_processor_type": "ViTFeatureExtractor",
        "size": 32,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    assert read_preprocessing(tmp_path) == ImageSpec(32, (0.5,) * 3, (0.5,) * 3, resize="bilinear", fit="squash")
    config |= {"image_processor_type": "SiglipImageProcessorFast", "size": {"height": 32, "width": 32}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    assert read_preprocessing(tmp_path).resize == "bicubic"
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps(config | {"image_processor_type": "DPTImageProcessor"})
    )
    with pytest.raises(ConversionError, match="image_processor_type is 'DPTImageProcessor', expected one of 'Bit"):
        read_preprocessing(tmp_path)


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
        ({"size": 192}, "expected squares, the second not larger than the first"),
        ({"size": {"height": 224, "width": 128}, "do_center_crop": False}, "expected squares"),
        ({"crop_size": {"height": 224, "width": 128}}, "expected squares"),
        ({"do_center_crop": False}, "expected squares"),
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
    (tmp_path / "preprocessor_config.json").write_text('{"size": 192, "crop_size": 224, "do_resize": false}')
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


def test_nothing_is_written_of_what_is_not_known(tmp_path):
    write_tokenizer(tmp_path, None, context_length=None)
    write_preprocessing(tmp_path, None)
    assert list(tmp_path.iterdir()) == []


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
