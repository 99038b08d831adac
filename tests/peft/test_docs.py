import doctest
import pathlib

from mmjax import peft

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "peft.md"


def test_examples_run():
    result = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert result.attempted > 25
    assert result.failed == 0


def test_every_public_function_is_on_the_page():
    page = PAGE.read_text()
    helpers = {"overlay", "split_adapter", "collapse_prefix", "build_adapter"}
    functions = {name for name in peft.__all__ if name.islower()} - helpers
    assert [name for name in sorted(functions) if f"`{name}" not in page and f"peft.{name}(" not in page] == []


def test_names_are_sorted_and_exist():
    assert all(hasattr(peft, name) for name in peft.__all__)
    assert len(set(peft.__all__)) == len(peft.__all__)
