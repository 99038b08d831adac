"""What a reader may rely on for every name of the losses and of the metrics: signature, docstring, README."""

import doctest
import inspect
import pathlib
import re

import pytest

from mmjax import losses, metrics

ROOMS = (losses, metrics)
FUNCTIONS = [getattr(room, name) for room in ROOMS for name in room.__all__]
every_function = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
every_room = pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.__name__)


def parameters(function, kind):
    return [p for p in inspect.signature(function).parameters.values() if p.kind is kind]


@every_room
def test_the_list_of_names_is_sorted_and_complete(room):
    public = [name for name, value in vars(room).items() if inspect.isfunction(value)]
    assert room.__all__ == sorted(public)


@every_function
def test_arrays_are_positional_and_hyper_parameters_keyword_only(function):
    arrays = parameters(function, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    settings = parameters(function, inspect.Parameter.KEYWORD_ONLY)
    assert len(arrays) + len(settings) == len(inspect.signature(function).parameters)
    assert arrays
    assert all(p.default is inspect.Parameter.empty for p in arrays)


@every_function
def test_docstring_has_its_parts_in_order(function):
    doc = inspect.getdoc(function)
    assert doc.splitlines()[0].endswith(".")
    parts = ["Args:", "Returns:", ">>> "] + (["Reference:"] if "chunked" not in function.__name__ else [])
    places = [doc.find(part) for part in parts]
    assert -1 not in places
    assert places == sorted(places)


@every_function
def test_docstring_gives_the_shape_of_every_array_and_of_the_result(function):
    doc = inspect.getdoc(function)
    for parameter in inspect.signature(function).parameters.values():
        assert re.search(rf"^  {parameter.name}: ", doc, re.MULTILINE), parameter.name
    for parameter in parameters(function, inspect.Parameter.POSITIONAL_OR_KEYWORD):
        assert re.search(rf"^  {parameter.name}: `\[.*?\]`", doc, re.MULTILINE), parameter.name
    assert re.search(r"`\[.*?\]`", doc.split("Returns:")[1])


@every_room
def test_readme_lists_every_name_and_runs(room):
    readme = pathlib.Path(room.__file__).with_name("README.md")
    listed = re.findall(r"^\| `(\w+)` \|", readme.read_text(), re.MULTILINE)
    assert sorted(listed) == room.__all__
    failed, attempted = doctest.testfile(str(readme), module_relative=False)
    assert attempted
    assert not failed
