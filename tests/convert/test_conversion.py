"""Export, import and detection, whatever the format."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import registry
from mmjax.config import ConfigError
from mmjax.convert import (
    Bundle,
    ConversionError,
    Format,
    Network,
    Program,
    Report,
    Source,
    compare,
    conversion,
    detect_format,
    export_model,
    find_format,
    import_model,
    layers,
    leading,
    resize_pictures,
    select_towers,
    shorten_texts,
    verify_model,
)
from mmjax.convert.rules import Rule
from mmjax.convert.tensor_files import write_tensors
from mmjax.models import DualEncoder
from mmjax.paths import flatten


@pytest.mark.parametrize("name", registry.names("mmjax.convert.formats"))
def test_every_file_of_formats_is_a_format_that_says_no_to_strangers(name, tmp_path):
    target = find_format(name)
    assert isinstance(target, Format)
    assert set(target.towers) <= {"image", "text"}
    write_tensors(tmp_path, {"stranger.weight": np.zeros(1, np.float32)})
    (tmp_path / "config.json").write_text('{"model_type": "stranger"}')
    assert not target.detect(Source(tmp_path))


@pytest.mark.parametrize("name", registry.names("mmjax.convert.programs"))
def test_every_file_of_programs_is_a_program(name):
    assert isinstance(find_format(name), Program)


def test_unknown_formats_are_met_with_near_misses():
    with pytest.raises(ConfigError, match="no format 'hf_klip'; did you mean 'hf_clip'"):
        find_format("hf_klip")


def test_a_folder_of_no_format_says_what_it_is(tmp_path):
    write_tensors(tmp_path, {"stranger.weight": np.zeros(1, np.float32)})
    with pytest.raises(ConversionError, match=r"there is no config.json that says what it is; known are .*hf_clip"):
        import_model(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "stranger", "architectures": ["Stranger"]}')
    with pytest.raises(ConversionError, match=r"config.json says .*'stranger'.*'Stranger'"):
        detect_format(tmp_path)


def _toy(**changes) -> Format:
    """An image tower whose positions are two tensors, and whose projection is not in the file."""
    block = {name: name.replace("/", ".") for name in ("ln_1", "attn/{query,key,value}", "attn/out", "ln_2")}
    block = {**block, "attn/{query,key,value}": "qkv", "mlp/fc1": "fc1", "mlp/fc2": "fc2"}
    table = (
        Rule("image/patch_embed/kernel", "patch"),
        Rule("image/class_embedding", "class", leading(2)),
        Rule("image/position_embedding[:1]", "position.class", leading()),
        Rule("image/position_embedding[1:]", "position.patches", leading()),
        *layers("image/encoder/block_{i}", "layer.{i}", block),
        *layers("image", "norm", {"ln_pre": "pre", "ln_post": "post"}),
        Rule("image/proj/kernel", None),
    )
    fields = {
        "name": "Toy",
        "detect": lambda source: source.config.get("toy", False),
        "read": None,
        "rules": lambda model: table,
        "obstacles": lambda bundle: [],
        "write": lambda folder, bundle, tensors: write_tensors(folder, tensors),
        "load": lambda source: Network(),
        "towers": ("image",),
    }
    return Format(**(fields | changes))


@pytest.fixture
def toy(monkeypatch):
    """`toy(**fields)` puts a format "toy" in the place of every other."""

    def install(**changes) -> None:
        found = _toy(**changes)
        monkeypatch.setattr(conversion, "find_format", lambda name: found)

    return install


def _without_projection(bundle: Bundle) -> Bundle:
    proj = {"kernel": jnp.zeros_like(bundle.params["image"]["proj"]["kernel"])}
    return bundle._replace(params={**bundle.params, "image": {**bundle.params["image"], "proj": proj}})


def test_a_format_of_one_tower_takes_that_tower(tiny, tmp_path, toy):
    bundle = _without_projection(tiny())
    image = select_towers(bundle, ("image",))
    toy(read=lambda source: image._replace(params={}))
    export_model(bundle, tmp_path / "out", format="toy")
    tensors = Source(tmp_path / "out").tensors
    assert tensors["class"].shape == (1, 1, 16)
    assert (tensors["position.class"].shape, tensors["position.patches"].shape) == ((1, 1, 16), (1, 16, 16))
    assert tensors["layer.1.qkv.weight"].shape == (48, 16)
    back = import_model(tmp_path / "out", format="toy")
    found, wanted = flatten(back.params), flatten(image.params)
    assert list(found) == list(wanted)
    for path, leaf in wanted.items():
        np.testing.assert_array_equal(found[path], leaf, err_msg=path)


def test_a_tower_that_is_not_there(tiny, tmp_path, toy):
    toy()
    with pytest.raises(ConversionError, match="the model has no image tower"):
        export_model(tiny(towers=("text",)), tmp_path / "out", format="toy")
    assert list(tmp_path.iterdir()) == []


def test_what_a_format_takes_for_zero_must_be(tiny, tmp_path, toy):
    toy()
    with pytest.raises(ConversionError, match="'image/proj/kernel' is not zero, but the format has no tensor for it"):
        export_model(tiny(), tmp_path / "out", format="toy")
    assert list(tmp_path.iterdir()) == []


def test_settings_and_tensors_are_reported_together(tiny, tmp_path, toy):
    bundle = select_towers(_without_projection(tiny()), ("image",))
    toy(read=lambda source: bundle, obstacles=lambda bundle: ["image.act is 'x'"])
    write_tensors(tmp_path, {"class": np.zeros((1, 1, 16), np.float32), "more": np.zeros(2, np.float32)})
    with pytest.raises(ConversionError, match="cannot be read as Toy") as error:
        import_model(tmp_path, format="toy")
    assert error.value.problems[0] == "image.act is 'x'"
    assert "missing tensor 'patch' (4, 4, 3, 16); there are: more" in error.value.problems
    assert "tensor 'more' (2,) has no place in the model" in error.value.problems


def test_two_formats_that_fit_are_named(tmp_path, toy):
    toy()
    (tmp_path / "config.json").write_text('{"toy": true}')
    names = registry.names("mmjax.convert.formats")
    if len(names) > 1:
        with pytest.raises(ConversionError, match="several formats fit") as error:
            detect_format(tmp_path)
        assert len(error.value.problems) == len(names)


def _program(report: Report) -> Program:
    return Program("Toy program", lambda bundle: [], lambda folder, bundle: None, lambda source, bundle: report)


def test_a_program_is_written_and_not_read(tiny, tmp_path, monkeypatch):
    report = Report("toy", (compare("x", np.zeros(1), np.ones(1)),), {})
    monkeypatch.setattr(conversion, "find_format", lambda name: _program(report))
    export_model(tiny(towers=("text",)), tmp_path / "out", format="toy")
    with pytest.raises(ConversionError, match="no parity"):
        export_model(tiny(), tmp_path / "verified", format="toy", verify=True)
    assert not (tmp_path / "verified").exists()
    with pytest.raises(ConfigError, match=r"toy can be exported only; formats that can be read: .*hf_clip"):
        import_model(tmp_path / "out", format="toy")


def test_verification_needs_the_towers_of_the_format(tiny, tmp_path, toy):
    toy()
    with pytest.raises(ConversionError, match="the model has no image tower"):
        verify_model(tiny(towers=("text",)), tmp_path, format="toy")


def test_pictures_of_another_size(tiny):
    bundle = tiny(towers=("image",))
    larger = resize_pictures(bundle, 24)
    assert (larger.model.image.image_size, larger.image.size) == (24, 24)
    table = larger.params["image"]["position_embedding"]
    assert table.shape == (1 + 36, 16)
    np.testing.assert_array_equal(table[0], bundle.params["image"]["position_embedding"][0])
    # What the tower does at every call to a table of another size is now done for good.
    pixels = np.random.default_rng(0).standard_normal((2, 24, 24, 3), np.float32)
    (ours, _), (wanted, _) = (x.model.apply({"params": x.params}, pixels) for x in (larger, bundle))
    np.testing.assert_allclose(ours.image_embeds, wanted.image_embeds, atol=1e-5)
    assert resize_pictures(bundle, 16).params["image"]["position_embedding"].shape == (17, 16)


@pytest.mark.parametrize(
    ("towers", "size", "message"),
    [(("image",), 18, "18 pixels are not divisible by the patch size 4"), (("text",), 16, "no image tower")],
)
def test_sizes_that_cannot_be(tiny, towers, size, message):
    with pytest.raises(ConversionError, match=message):
        resize_pictures(tiny(towers=towers), size)


def test_texts_of_fewer_tokens(tiny):
    bundle = tiny()
    shorter = shorten_texts(bundle, 3)
    assert (shorter.context_length, shorter.model) == (3, bundle.model)
    most = bundle.model.text.context_length
    for length in (1, most + 1):
        with pytest.raises(ConversionError, match=f"from 2 to {most}"):
            shorten_texts(bundle, length)
    with pytest.raises(ConversionError, match="no text tower"):
        shorten_texts(tiny(towers=("image",)), 3)


def test_one_tower_of_two_keeps_what_is_its_own(tiny):
    both = tiny()
    text = select_towers(both._replace(model=both.model.clone(use_bias=True)), ("text",))
    assert text.model == DualEncoder(text=both.model.text)
    assert (text.image, text.context_length, text.tokenizer) == (None, both.context_length, both.tokenizer)
    assert list(text.params) == ["text"]
    assert select_towers(both, ("image", "text")) is both


def test_json_of_a_source_is_read_once(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"toy": True}))
    (tmp_path / "model.safetensors").touch()
    source = Source(tmp_path / "model.safetensors")
    assert source.folder == tmp_path
    assert source.config["toy"]
    (tmp_path / "config.json").unlink()
    assert source.config["toy"]
    assert Source(tmp_path).config == {}
    with pytest.raises(ConversionError, match=r"no such file or folder; did you mean 'model.safetensors'"):
        Source(tmp_path / "model.safetensor")
