"""Models from elsewhere as runs: written, read back, embedded with, and not trained."""

import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import parallel
from mmjax.convert.folder import new_folder
from mmjax.data import ImageSpec, train_bpe
from mmjax.evaluate.embed import embed_images, embed_texts
from mmjax.models import DualEncoder, build_dual_encoder
from mmjax.train import CheckpointError, encoders, load_run, train_and_evaluate, write_imported
from mmjax.train.workdir import load_settings
from tests.models.random_params import random_params
from tests.train.tiny import tiny_config

TOKENIZER = train_bpe(["a small red circle", "two blue squares"] * 4, vocab_size=280)
IMAGE = {"patch_size": 8, "width": 16, "num_layers": 2, "num_heads": 2, "output_dim": None, "image_size": 16}
TEXT = {
    "vocab_size": TOKENIZER.vocab_size,
    "context_length": 12,
    "width": 8,
    "num_layers": 2,
    "num_heads": 2,
    "output_dim": None,
    "norm_position": "post",
    "type_vocab": 2,
    "causal": False,
    "pool": "mean",
    "ln_eps": 1e-12,
}


class Imported(NamedTuple):
    model: DualEncoder
    params: dict[str, Any]
    tokenizer: Any = None
    image: ImageSpec | None = None
    context_length: int | None = None


def imported(*names, **both):
    """A model of these towers with random parameters, and all that goes with them."""
    given = {name: settings | both for name, settings in (("image", IMAGE), ("text", TEXT)) if name in names}
    model = build_dual_encoder(**given)
    images, ids = jnp.zeros((1, 16, 16, 3)), jnp.zeros((1, 2), int)
    inputs = {"images": images} if "image" in names else {}
    inputs |= {"token_ids": ids} if "text" in names else {}
    spec = ImageSpec(16, mean=(0.5, 0.5, 0.5), resize="bilinear") if "image" in names else None
    text = (TOKENIZER, 10) if "text" in names else (None, None)
    return Imported(model, random_params(model, **inputs), text[0], spec, text[1])


@pytest.mark.parametrize("names", [("image",), ("text",)])
def test_what_was_written_is_read(names, tmp_path):
    bundle = imported(*names)
    write_imported(tmp_path / "run", bundle)
    run = load_run(tmp_path / "run")
    assert (run.model, run.image, run.context_length, run.step) == (
        bundle.model,
        bundle.image,
        bundle.context_length,
        0,
    )
    jax.tree.map(np.testing.assert_array_equal, run.params, bundle.params)
    assert set(run.method.encoders) == set(names)
    assert (run.tokenizer is None) == ("text" not in names)
    if run.tokenizer is not None:
        ids = [t.encode(["a small blue circle"], length=10)[0] for t in (run.tokenizer, TOKENIZER)]
        np.testing.assert_array_equal(*ids)
    assert load_run(tmp_path / "run" / "checkpoints" / "0").step == 0


def test_it_embeds_pictures_and_texts(tmp_path):
    bundle = imported("image", "text", width=8)
    write_imported(tmp_path / "run", bundle)
    run = load_run(tmp_path / "run")
    encode = encoders(run, parallel.make_mesh())._replace(batch_size=4)
    pictures = np.random.default_rng(0).integers(0, 255, (3, 16, 16, 3)).astype(np.uint8)
    images = embed_images(encode, run.params, [{"image": picture} for picture in pictures])
    texts = embed_texts(encode, run.params, ["red", "a circle"])
    pixels = (pictures / 255 - 0.5) / np.array(bundle.image.std)
    ids, mask = TOKENIZER.encode(["red", "a circle"], length=10)
    expected, _ = bundle.model.apply({"params": bundle.params}, jnp.float32(pixels), ids, text_mask=mask)
    np.testing.assert_allclose(images.embeds, expected.image_embeds, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(texts, expected.text_embeds, rtol=1e-4, atol=1e-5)


def test_the_config_says_all_and_is_readable(tmp_path):
    write_imported(tmp_path / "run", imported("text"))
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["method"] == {"name": "pretrained"}
    assert config["data"] == {"context_length": 10}
    assert set(config["model"]) == {"text", "init_scale", "use_bias", "init_bias"}
    assert (config["model"]["text"]["pool"], config["model"]["text"]["context_length"]) == ("mean", 12)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "checkpoints",
        "config.json",
        "tokenizer.json",
    ]


def test_nothing_is_written_over_and_a_failure_leaves_nothing(tmp_path):
    bundle = imported("image")
    (tmp_path / "there").mkdir()
    with pytest.raises(FileExistsError, match="there exists"):
        write_imported(tmp_path / "there", bundle)
    with pytest.raises(TypeError):
        write_imported(tmp_path / "failed", bundle._replace(params={"image": {"proj": object()}}))
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_it_may_be_written_inside_a_folder_in_the_making(tmp_path):
    with new_folder(tmp_path / "out") as folder:
        write_imported(folder / "run", imported("image"))
    assert load_run(tmp_path / "out" / "run").step == 0


def test_a_run_without_average_or_run_says_so(tmp_path):
    write_imported(tmp_path / "run", imported("image"))
    with pytest.raises(CheckpointError, match="holds no moving average"):
        load_run(tmp_path / "run", ema=True)
    with pytest.raises(CheckpointError, match="is no workdir of a run"):
        load_settings(tmp_path)


def test_training_the_method_names_init_from(tmp_path):
    with pytest.raises(ValueError, match=r"pretrained: .*config\.init_from"):
        train_and_evaluate(tiny_config(method={"name": "pretrained"}), tmp_path)
    assert not (tmp_path / "config.json").exists()
