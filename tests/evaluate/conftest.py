"""Eight pictures of one colour each, and encoders that know exactly what they do: one of two captions is confused."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import parallel
from mmjax.data import ImageSpec
from mmjax.evaluate import Encoders
from mmjax.evaluate.report import HeldOut

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "cyan": (0, 255, 255),
    "magenta": (255, 0, 255),
    "white": (255, 255, 255),
    "grey <script>alert(1)</script>": (90, 90, 90),
}
NAMES = list(COLOURS)
_SPEC = ImageSpec(size=4, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


class ColourSource:
    """One record a colour."""

    synthetic = True

    def __len__(self):
        return len(NAMES)

    def __getitem__(self, index):
        image = np.full((16, 16, 3), COLOURS[NAMES[index]], np.uint8)
        return {"image": image, "captions": [NAMES[index]], "id": NAMES[index], "half": index % 2}


class NameTokenizer:
    """A caption is one token: its place among the names."""

    def encode(self, texts, *, length):
        ids = np.zeros((len(texts), length), np.int32)
        ids[:, 0] = [NAMES.index(text) if text else 0 for text in texts]
        return ids, np.ones((len(texts), length), bool)


def embed_image(params, batch):
    """1 at the colour of the picture, 0 elsewhere."""
    colour = batch["image"].mean(axis=(1, 2))
    distance = jnp.square(colour[:, None] - params["colours"]).sum(axis=-1)
    return jnp.float32(distance < 1e-3)


@pytest.fixture
def source():
    return ColourSource()


@pytest.fixture
def data(source):
    return HeldOut(source, "colours")


@pytest.fixture
def params():
    """The text table is that of the pictures, with `red` and `green` exchanged and the rest a little mixed."""
    table = 0.9 * np.eye(len(NAMES), dtype=np.float32) + 0.1 / len(NAMES)
    table[[0, 1]] = table[[1, 0]]
    return {"colours": np.float32(list(COLOURS.values())) / 127.5 - 1, "text": {"table": table}}


@pytest.fixture
def encoders():
    functions = {"image": embed_image, "text": lambda params, batch: params["text"]["table"][batch["text"][:, 0]]}
    return Encoders(functions, NameTokenizer(), _SPEC, 3, parallel.make_mesh(), batch_size=4)


@pytest.fixture
def workdir(tmp_path):
    """A run of ten steps that was evaluated twice."""
    folder = tmp_path / "colour run"
    folder.mkdir()
    config = {
        "batch_size": 4,
        "seed": 7,
        "method": {"name": "clip", "loss": "softmax"},
        "model": {"preset": "nano/8"},
        "data": {"train": {"name": "shapes", "split": "train", "note": "</pre><script>alert(2)</script>"}},
        "optimizer": {"name": "adamw", "learning_rate": 1e-3},
        "evals": {"retrieval": {"data": {"name": "shapes", "split": "test"}}},
    }
    lines = []
    for step in (5, 10):
        training = {"loss": 2.0 / step, "scale": 10.0 + step, "learning_rate": 1e-3, "grad_norm": 1.0}
        recalls = {f"retrieval/{way}/R@1": step / 20 for way in ("image_to_text", "text_to_image")}
        lines += [{"step": step, **training}, {"step": step, **recalls}]
    results = {"step": 10, "trained_on_synthetic_data": True, **recalls, "retrieval/text_to_image/gallery": 1234}
    results["retrieval/image_to_text/gallery"] = 4321
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "result.json").write_text(json.dumps(results))
    return folder
