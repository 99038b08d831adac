import pytest

from mmjax.evaluate.report import held_out
from mmjax.evaluate.report.held_out import protocols


def test_held_out_takes_the_first_retrieval_or_the_evaluation_named():
    data = {"name": "shapes", "split": "test", "num_records": 5}
    evals = {
        "zero_shot": {"data": data},
        "first": {"kind": "retrieval", "data": data, "group": "label", "max_records": 3},
        "retrieval": {"data": data | {"num_records": 7}},
    }
    found = held_out(evals)
    assert (len(found.source), found.group, found.max_records) == (5, "label", 3)
    assert found.words == "shapes (split test, num_records 5)"
    assert len(held_out(evals, "retrieval").source) == 7
    assert held_out({"zero_shot": {"data": data}}) is None
    with pytest.raises(ValueError, match="no evaluation 'frist' with data; did you mean 'first'"):
        held_out(evals, "frist")


def test_protocols_state_defaults_that_bear_on_the_numbers():
    data = {"name": "shapes", "split": "test"}
    evals = {"new": {"kind": "retrieval", "data": data, "ks": (1,)}, "zero_shot": {"data": data}}
    retrieval, zero_shot = protocols(evals)
    assert retrieval.settings == {"ks": (1,), "ties": "worst"}
    assert (retrieval.name, retrieval.kind, retrieval.data) == ("new", "retrieval", "shapes (split test)")
    assert zero_shot.settings == {"ks": (1, 5)}
