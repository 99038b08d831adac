import pytest

from mmjax.config import ConfigError, Section, call, difference, parse_call

VALUES = {"seed": 1, "optimizer": {"name": "adamw", "lerning_rate": 0.1}, "evals": {}}


def test_unread_keys_are_an_error_with_near_misses_among_those_asked_for():
    config = Section(VALUES)
    assert (config.seed, config["evals"]) == (1, {})
    config.optimizer.get("learning_rate", 1e-3)
    config.optimizer.get("name")
    with pytest.raises(ConfigError, match=r"config\.optimizer\.lerning_rate \(did you mean learning_rate\?\)"):
        config.check_read()


def test_a_section_nobody_opened_is_unread_as_a_whole():
    config = Section(VALUES)
    assert config.unread() == ["config.seed", "config.optimizer", "config.evals"]


def test_everything_read_passes():
    config = Section(VALUES)
    config.read_all()
    config.check_read()


def test_plain_does_not_count_as_reading():
    config = Section(VALUES)
    assert config.plain() == VALUES
    assert "config.seed" in config.unread()


def test_a_key_that_is_not_there_names_near_misses():
    with pytest.raises(ConfigError, match=r"config has no key 'sed'; did you mean 'seed'\?"):
        _ = Section(VALUES).sed


def test_fill_adds_only_what_is_missing():
    config = Section({"model": {"text": {"width": 8}}})
    config.fill({"model": {"text": {"width": 16, "vocab_size": 300}}})
    assert config.plain() == {"model": {"text": {"width": 8, "vocab_size": 300}}}


def test_call_reads_all_and_checks_the_signature():
    def build(*, name, rate=1.0):
        return name, rate

    config = Section({"name": "x", "rate": 2.0}, "config.thing")
    assert call(build, config) == ("x", 2.0)
    config.check_read()
    with pytest.raises(ConfigError, match=r"config\.thing has no setting 'rte'; did you mean 'rate'\?"):
        call(build, Section({"name": "x", "rte": 2.0}, "config.thing"))
    with pytest.raises(ConfigError, match=r"config\.thing lacks the setting 'name'"):
        call(build, Section({}, "config.thing"))


def test_call_leaves_arguments_of_the_caller_alone():
    def build(data, *, rate, extra):
        return data, rate, extra

    assert call(build, {"rate": 1}, "data", extra=2) == ("data", 1, 2)
    with pytest.raises(ConfigError, match="no setting 'extra'"):
        call(build, {"rate": 1, "extra": 3}, "data", extra=2)


def test_difference_sees_tuples_as_json_does_and_names_absent_keys():
    assert difference({"a": (1, 2)}, {"a": [1, 2]}) == []
    assert difference({"a": 1}, {"b": {"c": 1}}) == ["a: 1 -> (absent)", "b.c: (absent) -> 1"]


def test_parse_call_refuses_what_is_no_setting():
    assert parse_call("jsonl:path=a/b.jsonl,limit=3") == ("jsonl", {"path": "a/b.jsonl", "limit": 3})
    with pytest.raises(ConfigError, match="'path' is no setting=value"):
        parse_call("jsonl:path")
