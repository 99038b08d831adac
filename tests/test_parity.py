"""Every function and module against the numbers of its authors' code."""

import pytest

from tests import golden

GOLDENS = golden.read_all()


@pytest.mark.parametrize("case", GOLDENS, ids=str)
def test_matches_the_authors_numbers(case):
    golden.check(case)


def test_goldens_are_here():
    assert {case.archive for case in GOLDENS} >= {"clip", "clip_towers"}


@pytest.mark.parametrize("kind", ["outputs", "gradients"])
def test_a_changed_number_is_noticed(kind):
    """The comparison itself can fail: one number is off by a hundredth, in the results and in the gradients."""
    case = next(case for case in GOLDENS if case.function == "mmjax.losses.clip_loss")
    name = {"outputs": "value", "gradients": "image_embeds"}[kind]
    changed = getattr(case, kind)[name].copy()
    changed.flat[0] += 1e-2
    with pytest.raises(AssertionError, match=name):
        golden.check(case._replace(**{kind: getattr(case, kind) | {name: changed}}))


def test_a_name_that_does_not_exist_is_an_error():
    with pytest.raises(AttributeError, match="clip_lose"):
        golden.check(GOLDENS[0]._replace(function="mmjax.losses.clip_lose"))
