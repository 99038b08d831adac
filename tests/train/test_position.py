import itertools

import pytest

from mmjax.data import train_batches, train_bpe
from mmjax.train.position import restore_position, save_position, share_position

SOURCE = [{"captions": [f"caption {number}"]} for number in range(24)]
TOKENIZER = train_bpe(["caption"], vocab_size=300)


def stream(process=0, processes=1):
    return train_batches(
        SOURCE, batch_size=6, image=None, tokenizer=TOKENIZER, context_length=8, seed=3, shard=(process, processes)
    )


def seen(iterators, batches):
    return [sorted(i for it in iterators for i in next(it)["index"].tolist()) for _ in range(batches)]


@pytest.mark.parametrize(("before", "after"), list(itertools.permutations((1, 2, 3), 2)))
def test_other_processes_go_on_with_the_batches_that_would_have_come(before, after):
    whole = seen([stream()], 7)
    old = [stream(process, before) for process in range(before)]
    assert seen(old, 3) == whole[:3]
    state, repeated = share_position([iterator.get_state() for iterator in old], after)
    assert repeated == 0
    new = [stream(process, after) for process in range(after)]
    for process, iterator in enumerate(new):
        iterator.set_state({**state, "stream": {**state["stream"], "shard": [process, after]}})
    assert seen(new, 4) == whole[3:]


def test_processes_at_different_places_go_on_from_the_first_of_them():
    state = {"seen": 4, "bad": 0, "bad_in_all": 0}
    ahead = state | {"position": 5, "bad": 1, "bad_in_all": 2}
    shared, repeated = share_position([state | {"position": 4}, ahead], 1)
    assert (shared["position"], repeated) == (8, 1)
    assert (shared["seen"], shared["bad"], shared["bad_in_all"]) == (8, 1, 2)


def test_one_process_goes_on_where_it_was():
    first, second = stream(), stream()
    next(first)
    assert restore_position(second, save_position(first)) == 0
    assert next(second)["index"].tolist() == next(first)["index"].tolist()
