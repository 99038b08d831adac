import doctest
import pathlib

import mmjax.data

README = pathlib.Path(mmjax.data.__file__).parent / "README.md"


def test_example_runs():
    result = doctest.testfile(str(README), module_relative=False)
    assert result.attempted > 5
    assert result.failed == 0


def test_every_public_name_is_in_the_table():
    table = README.read_text(encoding="utf-8")
    assert [name for name in mmjax.data.__all__ if f"`{name}`" not in table] == []
