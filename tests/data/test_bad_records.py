"""Records of a stream that cannot be read."""

import logging

import numpy as np
import pytest

from mmjax.data import TooManyBadRecordsError
from tests.data.streams import GROUPED, RECORDS, SOURCE, indices, stream, take, with_bad


def test_bad_records_are_skipped_counted_and_named(caplog):
    source = [*with_bad(3, 50), {"image": "missing.png", "captions": ["one"], "label": 0}]
    with caplog.at_level(logging.WARNING, logger="absl"), stream(source, epochs=2, max_bad_share=0.03) as batches:
        found = indices(list(batches))
        assert batches.bad_records == 6
    np.testing.assert_array_equal(np.sort(found), np.repeat(np.delete(range(RECORDS), [3, 50]), 2))
    messages = sorted(entry.getMessage() for entry in caplog.records)
    assert messages == [
        "skipped record 100: list record 100: missing.png: no such file",
        "skipped record 3: list record 3: is no image in a format that Pillow reads",
        "skipped record 50: list record 50: is no image in a format that Pillow reads",
    ]


def test_padding_stands_for_bad_records():
    batches = take(epochs=1, source=with_bad(3), max_bad_share=0.1, remainder="pad", shuffle=False)
    mask = np.concatenate([batch["mask"] for batch in batches])
    np.testing.assert_array_equal(np.flatnonzero(~mask), [3, *range(100, 112)])
    assert batches[0]["index"][3] == 3


def test_another_example_of_its_batch_stands_in_for_a_bad_one_that_was_planned():
    planned, found = take(epochs=1, **GROUPED), take(epochs=1, source=with_bad(3, 50), max_bad_share=0.1, **GROUPED)
    for batch, other in zip(planned, found, strict=True):
        good = ~np.isin(batch["index"], [3, 50])
        count = good.sum()
        for name, values in other.items():
            np.testing.assert_array_equal(values[:count], batch[name][good], err_msg=name)
            np.testing.assert_array_equal(values[count:], values[: len(good) - count], err_msg=name)


def test_a_planned_batch_without_a_good_example_stops_the_run():
    with pytest.raises(TooManyBadRecordsError, match="none of 1 records of a batch can be read"):
        take(epochs=1, batch_size=1, source=with_bad(3), max_bad_share=1.0, **GROUPED)


def test_share_of_an_epoch():
    assert len(take(20, source=with_bad(5), max_bad_share=0.01)) == 20
    with pytest.raises(TooManyBadRecordsError, match=r"2 of 100 .* max_bad_share=0\.01.*is no image"):
        take(20, source=with_bad(5, 6), max_bad_share=0.01)


def test_share_is_looked_at_before_a_long_epoch_ends():
    with pytest.raises(TooManyBadRecordsError, match="11 of 1001 records"):
        take(epochs=1, source=with_bad(0) * 50, max_bad_share=0.005, shuffle=False)


def test_endless_stream_of_bad_records_stops():
    source = [SOURCE[0], *with_bad(*range(1, RECORDS))[1:]]
    with stream(source[1:] + source[:1], max_bad_share=1.0, epochs=1) as batches:
        assert indices(list(batches)).tolist() == [99]
    only_bad = [{"captions": ["one"]}] * 3
    with pytest.raises(ValueError, match="has no image, only captions; pass image=None"):
        stream(only_bad)


def test_errors_of_the_source_name_the_record():
    class Broken(list):
        def __getitem__(self, index):
            if index == 42:
                raise OSError("disk on fire")
            return super().__getitem__(index)

    with stream(Broken(SOURCE), epochs=1) as batches, pytest.raises(OSError, match="disk on fire") as error:
        list(batches)
    assert "while reading Broken record 42" in error.value.__notes__
