import json
import threading

import numpy as np
import pytest

from mmjax.data import train_batches, train_bpe
from mmjax.data.buckets import bucket_length
from mmjax.data.examples import ExampleReader
from mmjax.data.order import make_order
from mmjax.data.plan import Plan
from mmjax.data.records import CorruptRecordError

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TOKENIZER = train_bpe([" ".join(WORDS)] * 2, vocab_size=300)
LENGTHS = (5, 9, 16)
SOURCE = [{"captions": [" ".join(WORDS[: (index * 7) % 9 + 1])], "image": b"never looked at"} for index in range(50)]


def plan(source=SOURCE, *, batch_size=8, shard=(0, 1), epochs=2, grouped=True, remainder="keep", **settings):
    order = make_order(len(source), batch_size=batch_size, seed=1, shuffle=True, remainder=remainder, shard=(0, 1))
    texts = ExampleReader(source, order, None, TOKENIZER, LENGTHS[-1], None, False, strict=True)
    return Plan(
        texts,
        batch_size=batch_size,
        shard=shard,
        stop=order.positions(epochs),
        lengths=LENGTHS,
        grouped=grouped,
        **settings,
    )


def positions(plans, number):
    return [list(one.batch(number).positions) for one in plans]


def count(source=SOURCE, *, batch_size=8, epochs=2):
    return -(-len(source) * epochs // batch_size)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("processes", [2, 4, 8])
def test_processes_decide_alike_and_share_what_one_would_read(processes, grouped):
    alone = plan(grouped=grouped)
    together = [plan(grouped=grouped, shard=(process, processes)) for process in range(processes)]
    for number in range(count()):
        whole = alone.batch(number)
        for process, part in enumerate(together):
            planned = part.batch(number)
            assert planned.width == whole.width
            assert planned.positions == whole.positions[process::processes]


@pytest.mark.parametrize("remainder", ["keep", "drop", "pad"])
def test_every_position_once_and_each_batch_as_short_as_it_can_be(remainder):
    one = plan(remainder=remainder)
    order = one._texts.order
    batches = [one.batch(number) for number in range(-(-order.positions(2) // 8))]
    assert sorted(p for planned in batches for p in planned.positions) == list(range(order.positions(2)))
    for planned in batches:
        texts = [SOURCE[i]["captions"][0] for p in planned.positions for i in [order.locate(p)[1]] if i >= 0]
        longest = TOKENIZER.encode(texts, length=16)[1].sum(axis=1).max(initial=0)
        assert planned.width == bucket_length(LENGTHS, longest)
    pure = [planned.width for planned in batches[:4]]
    assert len(set(pure)) > 1


def test_ungrouped_batches_follow_the_stream():
    one = plan(grouped=False)
    assert positions([one], 0) == [list(range(8))]
    assert positions([one], 1) == [list(range(8, 16))]
    assert positions([one], 12) == [list(range(96, 100))]


@pytest.mark.parametrize("at", [0, 1, 5, 6, 12])
def test_a_plan_goes_on_from_a_state_and_reads_no_text_twice(at):
    expected = [plan().batch(number) for number in range(count())]
    state = json.loads(json.dumps(expected[at - 1].state if at else plan().get_state()))
    again = plan()
    again.batch(3)
    again.set_state(state, batch=at)
    assert again.get_state() == state
    assert [again.batch(number) for number in range(at, count())] == expected[at:]


def test_an_ungrouped_plan_goes_on_without_a_state():
    expected = [plan(grouped=False).batch(number) for number in range(count())]
    again = plan(grouped=False)
    again.set_state(None, batch=4)
    assert [again.batch(number) for number in range(4, count())] == expected[4:]


def test_pieces_are_the_batches_in_order_whoever_asks_first():
    source = SOURCE * 8
    whole = plan(source, batch_size=200, shard=(1, 2), epochs=1)
    expected = [list(whole.batch(number).positions) for number in (0, 1)]
    asked = plan(source, batch_size=200, shard=(1, 2), epochs=1)
    found = {}
    threads = [threading.Thread(target=lambda i=i: found.update({i: asked.piece(i)})) for i in (3, 1, 2, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(found[i]) for i in range(4)] == [64, 36, 64, 36]
    assert [[*found[0], *found[1]], [*found[2], *found[3]]] == expected


def test_epochs_end_when_as_many_examples_are_through():
    one = plan()
    assert [number for number in range(count()) if one.ends_epoch(number)] == [6, 12]


class Failing(list):
    """Record 7 cannot be read, for one reason or another."""

    def __init__(self, cause):
        super().__init__(SOURCE)
        self.cause = cause

    def __getitem__(self, index):
        if index == 7:
            raise CorruptRecordError("record 7", "unreadable") from self.cause
        return super().__getitem__(index)


def test_what_is_bad_for_all_is_short_and_what_may_be_bad_for_one_stops():
    one = plan(Failing(ValueError("no JSON")), epochs=1)
    assert sum(len(one.batch(number).positions) for number in range(7)) == 50
    with pytest.raises(CorruptRecordError, match="record 7"):
        plan(Failing(OSError("stale file handle")), epochs=1).batch(6)


@pytest.mark.parametrize("grouped", [False, True])
def test_batches_of_two_processes_are_those_of_one(grouped):
    def stream(shard):
        return train_batches(
            SOURCE, batch_size=8, image=None, tokenizer=TOKENIZER, context_length=16, seed=1, epochs=2,
            buckets=LENGTHS, group_by_length=grouped, shard=shard,
        )  # fmt: skip

    with stream((0, 1)) as whole, stream((0, 2)) as first, stream((1, 2)) as second:
        for batch in whole:
            parts = next(first), next(second)
            for name, values in batch.items():
                for process, part in enumerate(parts):
                    np.testing.assert_array_equal(part[name], values[process::2], err_msg=name)
        assert list(first) == list(second) == []
