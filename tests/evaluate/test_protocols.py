import jax
import numpy as np
import pytest

from mmjax import parallel
from mmjax.config import ConfigError
from mmjax.data import ImageSpec, train_bpe
from mmjax.evaluate import build_evaluators, make_encoders, run_evaluators
from mmjax.evaluate.embed import embed_images, embed_texts
from mmjax.evaluate.protocols import retrieval, zero_shot
from mmjax.method import Method

IMAGE = ImageSpec(2, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


class Colours(list):
    """Records whose picture is one flat colour."""

    class_names = ("r", "g")
    prompts = ("a {} thing", "{}")


def record(red, green, captions, **fields):
    return {"image": np.full((2, 2, 3), (red, green, 0), np.uint8), "captions": list(captions), **fields}


def encoders(embed_text, batch_size=4):
    """A picture is embedded as its mean colour; a text as the function says of its ids."""
    method = Method(
        init=lambda *_: None,
        loss=lambda *_: None,
        encoders={
            "image": lambda params, batch: batch["image"].mean(axis=(1, 2)) * params,
            "text": lambda params, batch: embed_text(batch["text"], batch["text_mask"]) * params,
        },
    )
    tokenizer = train_bpe(["red", "green", "thing"], vocab_size=300)
    return make_encoders(
        method, tokenizer=tokenizer, image=IMAGE, context_length=12, mesh=parallel.make_mesh(), batch_size=batch_size
    )


def first_letter_is_r(ids, mask):
    r = ids[:, 1:2] == ord_of("r")
    return jax.numpy.concatenate([r, ~r, 0 * r], axis=1).astype(float)


def ord_of(letter):
    return int(train_bpe(["red", "green", "thing"], vocab_size=300).encode([letter], length=3)[0][0, 1])


@pytest.fixture
def source(monkeypatch):
    records = Colours(
        [
            record(255, 0, ["r a", "r b"], label=0, concept="x"),
            record(0, 255, ["g a"], label=1, concept="y"),
            record(250, 10, ["r c"], label=0, concept="x"),
        ]
    )
    for module in (retrieval, zero_shot):
        monkeypatch.setattr(module, "build_source", lambda **_: records)
    return records


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_embedding_leaves_no_trace_of_the_padding(source, batch_size):
    tools = encoders(first_letter_is_r, batch_size)
    images = embed_images(tools, 2.0, source)
    np.testing.assert_allclose(images.embeds[:, 0], [2.0, 0.0, 500 / 255], rtol=1e-6)
    assert images.index.tolist() == [0, 1, 2]
    assert images.labels.tolist() == [0, 1, 0]
    assert embed_texts(tools, 1.0, ["r", "g", "r x"])[:, 0].tolist() == [1.0, 0.0, 1.0]


def test_retrieval_by_hand(source):
    """Texts that begin with r all embed to red: of the two red pictures the first is always the nearest."""
    values = dict(retrieval.build(encoders(first_letter_is_r), data={"name": "x"}, ks=(1, 2))(1.0))
    assert values["retrieval/text_to_image/queries"] == 4
    assert values["retrieval/text_to_image/gallery"] == 3
    assert values["retrieval/text_to_image/R@1"] == 0.75
    assert values["retrieval/text_to_image/R@2"] == 1.0
    assert values["retrieval/image_to_text/queries"] == 3
    # All three r captions tie for both red pictures: under "worst" the others' captions go first.
    assert values["retrieval/image_to_text/R@1"] == pytest.approx(1 / 3)
    assert values["retrieval/image_to_text/R@2"] == pytest.approx(2 / 3)


def test_ties_decide_in_the_open(source):
    values = dict(retrieval.build(encoders(first_letter_is_r), data={"name": "x"}, ks=(1,), ties="best")(1.0))
    assert values["retrieval/image_to_text/R@1"] == 1.0


def test_a_group_makes_its_pictures_and_captions_each_others_positives(source):
    run = retrieval.build(encoders(first_letter_is_r), data={"name": "x"}, ks=(1, 2), group="concept")
    values = dict(run(1.0))
    assert values["retrieval/text_to_image/R@1"] == 1.0
    assert values["retrieval/text_to_image/recall_fraction@1"] == pytest.approx((0.5 * 3 + 1) / 4)
    assert values["retrieval/text_to_image/recall_fraction@2"] == 1.0
    with pytest.raises(ConfigError, match="no field 'kind'; there are"):
        dict(retrieval.build(encoders(first_letter_is_r), data={"name": "x"}, group="kind")(1.0))


def test_captions_that_a_group_repeats_count_once(source):
    source[2]["captions"] = ["r a"]
    values = dict(retrieval.build(encoders(first_letter_is_r), data={"name": "x"}, group="concept")(1.0))
    assert values["retrieval/text_to_image/queries"] == 3


def test_a_collapsed_model_scores_nothing(source):
    flat = encoders(lambda ids, mask: jax.numpy.ones((ids.shape[0], 3)))
    values = dict(retrieval.build(flat, data={"name": "x"}, ks=(1,))(0.0))
    assert values["retrieval/text_to_image/R@1"] == 0.0


def test_zero_shot_by_hand(source):
    values = dict(zero_shot.build(encoders(first_letter_is_r), data={"name": "x"}, prompts=("{}",), ks=(1, 2))(1.0))
    assert values == {"zero_shot/top1": 1.0, "zero_shot/images": 3}


def test_zero_shot_says_what_it_lacks(source):
    with pytest.raises(ConfigError, match=r"the prompt 'a thing' needs exactly one \{\}"):
        zero_shot.build(encoders(first_letter_is_r), data={"name": "x"}, prompts=("a thing",))
    del source[0]["label"], source[1]["label"], source[2]["label"]
    with pytest.raises(ConfigError, match="have no label"):
        dict(zero_shot.build(encoders(first_letter_is_r), data={"name": "x"})(1.0))


def test_names_carry_the_evaluator_unless_it_is_named_after_its_protocol(source):
    evals = {"retrieval": {"data": {"name": "x"}}, "held_out": {"kind": "retrieval", "data": {"name": "x"}, "every": 3}}
    built = build_evaluators(evals, encoders(first_letter_is_r))
    assert [evaluator.every for evaluator in built] == [0, 3]
    names = [name for name, _ in run_evaluators(built, 1.0)]
    assert "retrieval/text_to_image/R@1" in names
    assert "held_out/retrieval/text_to_image/R@1" in names


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "retreival"}, "did you mean 'retrieval'"),
        ({"chunks": 3, "data": {}}, "'chunks'; did you mean 'chunk'"),
    ],
)
def test_wrong_settings_name_the_right_ones(settings, message):
    with pytest.raises(ConfigError, match=message):
        build_evaluators({"retrieval": settings}, encoders(first_letter_is_r))
