"""A bundle beside a PyTorch network: what is compared, and what is said not to be."""

import numpy as np
import pytest

from mmjax.convert import Network, Tower
from mmjax.convert.probe import FIXED_TEXTS, make_probe, run_bundle
from mmjax.convert.verifying import verify_network

torch = pytest.importorskip("torch", reason="runs networks of torch")


class _Constant(torch.nn.Module):
    """A block that gives what it was told, as the first of a tuple or alone."""

    def __init__(self, value, *, in_tuple):
        super().__init__()
        self.value, self.in_tuple = torch.tensor(value), in_tuple

    def forward(self):
        return (self.value, None) if self.in_tuple else self.value


def parrot(bundle, *, change=lambda outputs: outputs, **fields):
    """A network that gives our own outputs, in which `change` changes something."""
    outputs = change(run_bundle(bundle, make_probe(bundle)))

    def tower(name):
        found = [x for key, x in outputs.items() if key.startswith(f"{name}/encoder/block_")]
        blocks = [_Constant(x, in_tuple=i % 2 == 0) for i, x in enumerate(found)]

        def embed(*inputs):
            assert inputs[0].shape == ((4, 3, 16, 16) if name == "image" else (8, 14))
            for block in blocks:
                block()
            return torch.tensor(outputs[f"{name} embeddings"])

        return Tower(embed, blocks)

    names = [name for name in ("image", "text") if f"{name} embeddings" in outputs]
    return Network(**{name: tower(name) for name in names}, **fields)


def test_blocks_are_found_in_tuples_and_compared_at_valid_tokens(tiny):
    bundle = tiny()

    def at_padding(outputs):
        mask = make_probe(bundle).text.mask
        changed = np.where(mask[:, :, None], outputs["text/encoder/block_1"], 1e6).astype(np.float32)
        return outputs | {"text/encoder/block_1": changed}

    report = verify_network("parrot", parrot(bundle, change=at_padding, facts={"versions": "1.0"}), bundle)
    assert not report.failures
    assert [row.name for row in report.rows if "block" in row.name] == [
        "image/encoder/block_0",
        "image/encoder/block_1",
        "text/encoder/block_0",
        "text/encoder/block_1",
    ]
    assert report.facts["versions"] == "1.0"
    assert report.facts["inputs"] == "4 pictures and 8 texts"
    assert report.facts["not compared"] == "pixels, token ids, logits"


@pytest.mark.parametrize("name", ["image/encoder/block_1", "text embeddings"])
def test_a_difference_shows_where_it_is(tiny, name):
    bundle = tiny()
    network = parrot(bundle, change=lambda outputs: outputs | {name: outputs[name] + np.float32(1e-2)})
    failures = [row.name for row in verify_network("parrot", network, bundle).failures]
    assert failures == [name] if "block" in name else [name, f"{name}, normalised"]


def test_token_ids_and_pixels_of_the_other_side_are_compared(tiny):
    bundle = tiny()
    probe = make_probe(bundle)

    def tokenize(texts, length):
        assert (tuple(texts), length) == (FIXED_TEXTS, 14)
        # Another padding is no difference.
        return np.where(probe.text.mask, probe.text.token_ids, 77), probe.text.mask

    network = parrot(bundle, preprocess=lambda pictures: probe.image.pixels, tokenize=tokenize)
    report = verify_network("parrot", network, bundle)
    assert [row.name for row in report.rows[:2]] == ["pixels", "token ids"]
    assert report.facts["not compared"] == "logits"
    shorter = np.arange(14) < probe.text.mask.sum(axis=1)[:, None] - 1
    network = parrot(bundle, tokenize=lambda texts, length: (probe.text.token_ids, shorter))
    assert [row.name for row in verify_network("parrot", network, bundle).failures] == ["token ids"]


def test_without_tokenizer_and_preprocessing_the_towers_run_on_fixed_inputs(tiny):
    bundle = tiny()._replace(tokenizer=None, image=None)
    probe = make_probe(bundle)
    assert probe.text.raw == ()
    assert probe.text.mask.sum(axis=1).tolist()[0] == 1
    assert probe.text.mask.sum(axis=1).tolist()[-1] == 14
    assert probe.text.token_ids.max() < bundle.model.text.vocab_size
    report = verify_network("parrot", parrot(bundle), bundle)
    assert not report.failures
    assert report.facts["not compared"] == "logits"


def test_one_tower(tiny):
    bundle = tiny(towers=("image",))
    report = verify_network("parrot", parrot(bundle), bundle)
    assert not report.failures
    assert report.facts["inputs"] == "4 pictures"
    assert not [row.name for row in report.rows if "text" in row.name or row.name == "logits"]
