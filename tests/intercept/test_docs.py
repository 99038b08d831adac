import doctest
import pathlib

import mmjax.intercept

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "intercept.md"


def test_examples_run():
    result = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert result.attempted > 20
    assert result.failed == 0


def test_every_public_function_is_on_the_page():
    page = PAGE.read_text()
    functions = [name for name in mmjax.intercept.__all__ if name.islower()]
    assert len(functions) == 7
    assert [name for name in functions if f"`{name}(" not in page] == []
