"""Stand-alone programs, run as their README says."""

import json

import pytest

from mmjax.convert import ConversionError, export_model
from mmjax.convert.programs import jax_export
from mmjax.data import ImageSpec
from mmjax.models import MlpProjector, stack_layers
from tests.convert.exported_readme import run_readme
from tests.convert.random_params import with_random_params


def folder_of(tmp_path):
    return {path.name for path in tmp_path.iterdir()}


def test_programs_agree_and_say_what_they_take(tiny, tmp_path):
    bundle = tiny(num_layers=1, image={"image_size": 8}, spec=ImageSpec(8, fit="squash", scaled_size=10))
    bundle = with_random_params(bundle._replace(model=bundle.model.clone(use_bias=True)))
    report = export_model(bundle, tmp_path / "out", format="jax_export", verify=True)
    assert [row.name for row in report.rows] == [
        "pixels",
        "token ids",
        "image embeddings, batch of 1",
        "image embeddings, batch of 4",
        "text embeddings, batch of 1",
        "text embeddings, batch of 8",
        "logits",
    ]
    assert max(row.difference for row in report.rows) < 1e-5
    content = json.loads((tmp_path / "out" / "program.json").read_text())
    assert content["platforms"] == ["cpu", "cuda", "tpu"]
    assert content["bias"] == float(bundle.params["bias"])
    assert content["programs"]["encode_image"] == {
        "inputs": [{"name": "pixels", "shape": ["batch", 8, 8, 3], "dtype": "float32"}],
        "output": {"name": "embeddings", "shape": ["batch", 12], "dtype": "float32"},
    }
    run_readme(bundle, tmp_path / "out")


def test_one_tower_scanned_with_a_head(tiny, tmp_path):
    bundle = tiny(towers=("text",))
    model = bundle.model.clone(text=bundle.model.text.clone(dtype="bfloat16"), text_head=MlpProjector(6))
    bundle = with_random_params(bundle._replace(model=model, tokenizer=None))
    scanned = bundle.model.clone(text=bundle.model.text.clone(scan=True, attention="auto"))
    bundle = bundle._replace(model=scanned, params=stack_layers(bundle.params))
    report = export_model(bundle, tmp_path / "out", format="jax_export", verify=True)
    assert [row.name for row in report.rows] == ["text embeddings, batch of 1", "text embeddings, batch of 8"]
    names = {"encode_text.bin", "encode_text.safetensors", "program.json", "README.md", "parity.json", "parity.md"}
    assert folder_of(tmp_path / "out") == names
    content = json.loads((tmp_path / "out" / "program.json").read_text())
    assert content["programs"]["encode_text"]["output"]["shape"] == ["batch", 6]
    assert "encode_image" not in (tmp_path / "out" / "README.md").read_text()


def test_parameters_of_another_model_leave_nothing_behind(tiny, tmp_path):
    bundle = tiny()._replace(params=tiny(num_layers=1).params)
    with pytest.raises(ConversionError, match="missing parameter 'image/encoder/block_1/ln_1/scale'"):
        export_model(bundle, tmp_path / "out", format="jax_export")
    assert list(tmp_path.iterdir()) == []


def test_what_differs_is_named_and_nothing_is_left_behind(tiny, tmp_path, monkeypatch):
    def wrong(folder, tensors, *, file):
        tensors["image/ln_post/bias"][0] += 1e-2
        write_tensors(folder, tensors, file=file)

    write_tensors = jax_export.write_tensors
    monkeypatch.setattr(jax_export, "write_tensors", wrong)
    with pytest.raises(ConversionError, match="no parity") as error:
        export_model(tiny(num_layers=1, towers=("image",)), tmp_path / "out", format="jax_export", verify=True)
    assert all("image embeddings" in problem for problem in error.value.problems)
    assert list(tmp_path.iterdir()) == []
