"""ONNX graphs, run by onnxruntime."""

import json
import sys

import pytest

from mmjax.convert import ConversionError, MissingExtraError, export_model
from mmjax.data import ImageSpec
from mmjax.models import MlpProjector
from tests.convert.exported_readme import run_readme


def test_a_model_that_no_format_expresses_is_told_all_reasons(tiny, tmp_path):
    bundle = tiny(image={"pool": "avg"})
    bundle = bundle._replace(model=bundle.model.clone(text_head=MlpProjector(3)))
    with pytest.raises(ConversionError, match="ONNX cannot express this model") as error:
        export_model(bundle, tmp_path / "out", format="onnx")
    assert "hf_clip: image.pool is 'avg', HF CLIP has 'tok'" in error.value.problems
    assert "hf_clip: HF CLIP has no place for text_head" in error.value.problems
    assert list(tmp_path.iterdir()) == []


def test_missing_extra_leaves_nothing_behind(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setitem(sys.modules, "torch", sys.modules.get("torch", sys))
    with pytest.raises(MissingExtraError, match=r"ONNX needs onnxscript, .* pip install 'mmjax.onnx.'"):
        export_model(tiny(), tmp_path / "out", format="onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_graphs_agree_and_run_without_mmjax(tiny, tmp_path):
    for package in ("onnxruntime", "onnxscript", "torch", "transformers"):
        pytest.importorskip(package, reason="graphs need the extra 'onnx'")
    bundle = tiny(num_layers=1, image={"image_size": 8, "patch_size": 4}, spec=ImageSpec(8, resize="bilinear"))
    report = export_model(bundle, tmp_path / "out", format="onnx", verify=True)
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
    names = {"encode_image.onnx", "encode_text.onnx", "program.json", "tokenizer.json", "README.md"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names | {"parity.json", "parity.md"}
    content = json.loads((tmp_path / "out" / "program.json").read_text())
    assert content["programs"]["encode_image"]["inputs"][0]["shape"] == ["batch", 3, 8, 8]
    run_readme(bundle, tmp_path / "out")
