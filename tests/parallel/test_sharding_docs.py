import doctest
import pathlib

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "scale.md"


def test_examples_run():
    result = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert result.attempted > 5
    assert result.failed == 0
