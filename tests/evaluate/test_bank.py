import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax import parallel
from mmjax.data import Tokenizer, train_bpe
from mmjax.evaluate.bank import describe_tower, embed_bank
from mmjax.evaluate.embed import embed_images
from mmjax.models import build_dual_encoder

WORDS = {"modality": "image", "description": {"name": "colours"}, "tower": {}, "origin": {}}


@pytest.fixture
def compiled(encoders):
    return encoders._replace(functions={name: jax.jit(function) for name, function in encoders.functions.items()})


def test_a_bank_holds_what_the_encoder_says_of_each_record(compiled, params, source, tmp_path):
    bank = embed_bank(compiled, params, source, tmp_path / "bank", **WORDS)
    rows, valid = bank.lookup(np.arange(8), np.zeros(8, int))
    np.testing.assert_array_equal(rows, embed_images(compiled, params, source).embeds)
    assert valid.all()
    assert (bank.info.records, bank.info.dim, bank.info.epochs, bank.random) == (8, 8, 1, False)
    assert bank.info.params_hash == parallel.params_hash(params)


def test_unreadable_records_are_missing(compiled, params, source, tmp_path):
    records = [source[index] for index in range(8)]
    records[2]["image"] = b"no picture"
    bank = embed_bank(compiled, params, records, tmp_path / "bank", max_bad_share=0.2, **WORDS)
    np.testing.assert_array_equal(np.flatnonzero(~bank.valid[0]), [2])


def test_epochs_need_something_random(compiled, params, source, tmp_path):
    with pytest.raises(ValueError, match="3 epochs would be equal"):
        embed_bank(compiled, params, source, tmp_path / "bank", epochs=3, **WORDS)
    assert list(tmp_path.iterdir()) == []
    bank = embed_bank(compiled, params, source, tmp_path / "bank", epochs=3, transforms=["flip"], seed=4, **WORDS)
    assert bank.info.views == {"transforms": [["flip", {}]], "seed": 4}


def test_texts_are_embedded_with_the_caption_of_the_epoch(compiled, source, tmp_path):
    records = [{**source[index], "captions": [f"{index}", f"{index} again"]} for index in range(8)]
    tokenizer = train_bpe([caption for record in records for caption in record["captions"]], vocab_size=300)
    functions = {"text": lambda params, batch: jnp.sum(jnp.where(batch["text_mask"], batch["text"], 0), 1)[:, None]}
    encoders = compiled._replace(functions=functions, tokenizer=tokenizer, context_length=12)
    bank = embed_bank(encoders, {}, records, tmp_path / "bank", epochs=2, **{**WORDS, "modality": "text"})
    sums = [_sums(tokenizer, [record["captions"][choice] for record in records]) for choice in (0, 1)]
    stored = [bank.lookup(np.arange(8), np.full(8, epoch))[0][:, 0] for epoch in (0, 1)]
    for rows in stored:
        assert all(row in pair for row, pair in zip(rows, zip(*sums, strict=True), strict=True))
    assert (stored[0] != stored[1]).any()


def _sums(tokenizer: Tokenizer, texts):
    ids, mask = tokenizer.encode(texts, length=12)
    return np.where(mask, ids, 0).sum(axis=1)


def test_a_tower_is_described_by_what_changes_its_embeddings():
    tower = build_dual_encoder("nano/8").image
    described = describe_tower(tower)
    assert described["class"] == "VisionTransformer"
    assert described == describe_tower(tower.clone(remat="full"))
    assert described != describe_tower(tower.clone(ln_eps=1e-6))
    assert describe_tower(nn.Dense(2, dtype=jnp.bfloat16))["dtype"] == "bfloat16"
