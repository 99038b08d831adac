import itertools

import numpy as np
import pytest

from mmjax.data import ImageSpec, TooManyBadRecordsError, caption_batches, image_batches, train_bpe
from mmjax.data.image_spec import normalize

SPEC = ImageSpec(4)
PIXELS = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3), dtype=np.uint8)
SOURCE = [{"image": pixels, "label": index} for index, pixels in enumerate(PIXELS)]
TOKENIZER = train_bpe(["one two three"] * 2, vocab_size=270)


@pytest.mark.parametrize("batch_size", [1, 3, 10, 16])
def test_pictures_once_in_order(batch_size):
    batches = list(image_batches(SOURCE, batch_size=batch_size, image=SPEC))
    assert all(len(values) == batch_size for batch in batches for values in batch.values())
    joined = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    assert set(joined) == {"image", "index", "label", "mask"}
    mask = joined["mask"]
    np.testing.assert_array_equal(mask, np.arange(len(mask)) < 10)
    np.testing.assert_array_equal(joined["image"][mask], normalize(PIXELS, SPEC))
    np.testing.assert_array_equal(joined["index"], [*range(10), *[-1] * (len(mask) - 10)])
    np.testing.assert_array_equal(joined["label"][mask], range(10))


def test_first_records_only():
    (batch,) = image_batches(SOURCE, batch_size=8, image=SPEC, max_records=5)
    np.testing.assert_array_equal(batch["index"], [0, 1, 2, 3, 4, -1, -1, -1])
    assert len(list(image_batches(SOURCE, batch_size=5, image=SPEC, max_records=99))) == 2


def test_sources_without_labels():
    source = [{"image": pixels} for pixels in PIXELS]
    assert set(next(image_batches(source, batch_size=4, image=SPEC))) == {"image", "index", "mask"}


def test_bad_pictures_are_masked():
    source = [*SOURCE[:2], {"image": b"no picture", "label": 0}, *SOURCE[3:]]
    (batch,) = image_batches(source, batch_size=10, image=SPEC, max_bad_share=0.2)
    np.testing.assert_array_equal(np.flatnonzero(~batch["mask"]), [2])
    with pytest.raises(TooManyBadRecordsError, match="1 of 10"):
        list(image_batches(source, batch_size=10, image=SPEC))


def test_early_stop_needs_no_care():
    assert len(list(itertools.islice(image_batches(SOURCE, batch_size=2, image=SPEC), 2))) == 2


@pytest.mark.parametrize("count", [0, 1, 4, 6])
def test_captions_once_in_order(count):
    texts = ["one", "one two", "", "three", "two", "one"][:count]
    batches = list(caption_batches(texts, batch_size=4, tokenizer=TOKENIZER, context_length=8))
    assert len(batches) == -(-count // 4)
    if not count:
        return
    joined = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    mask = joined["mask"]
    ids, present = TOKENIZER.encode(texts, length=8)
    np.testing.assert_array_equal(joined["text"][mask], ids)
    np.testing.assert_array_equal(joined["text_mask"][mask], present)
    np.testing.assert_array_equal(joined["index"], [*range(count), *[-1] * (len(mask) - count)])
