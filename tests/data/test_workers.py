import pickle
import threading

import pytest

from mmjax.data.workers import Asked


def copies(ask, count):
    return [pickle.loads(pickle.dumps(ask)) for _ in range(count)]


def test_a_copy_asks_the_original_and_its_thread_ends_with_it():
    before = set(threading.enumerate())
    ask = Asked(lambda number: 6 / number)
    first, second = copies(ask, 2)
    assert [first(2), second(3), first(6), ask(1)] == [3.0, 2.0, 1.0, 6.0]
    ask.close()
    assert first(2) == 3.0
    del first, second
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=5)
    assert set(threading.enumerate()) == before


def test_an_error_comes_back_and_the_copy_goes_on():
    ask = Asked(lambda number: 6 / number)
    (copy,) = copies(ask, 1)
    with pytest.raises(ZeroDivisionError):
        copy(0)
    assert copy(1) == 6.0
    ask.close()


def test_an_answer_that_waits_holds_up_no_other_copy():
    ready = threading.Event()
    ask = Asked(lambda wait: ready.wait(5) if wait else ready.set())
    patient, quick = copies(ask, 2)
    found = []
    waiting = threading.Thread(target=lambda: found.append(patient(True)))
    waiting.start()
    quick(False)
    waiting.join(timeout=5)
    assert found == [True]
    ask.close()


def test_closed_before_any_copy_there_is_nothing_to_end():
    before = set(threading.enumerate())
    Asked(len).close()
    assert set(threading.enumerate()) == before
