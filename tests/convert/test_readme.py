import doctest
import pathlib

import mmjax.convert

README = pathlib.Path(mmjax.convert.__file__).parent / "README.md"


def test_example_runs():
    result = doctest.testfile(str(README), module_relative=False)
    assert result.attempted > 10
    assert result.failed == 0


def test_every_public_name_is_in_the_table():
    table = README.read_text()
    assert [name for name in mmjax.convert.__all__ if f"`{name}`" not in table] == []
