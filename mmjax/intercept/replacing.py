"""What `edit` and `insert` share: an `apply` whose inner values pass through a visitor."""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mmjax.intercept.call import Call
from mmjax.intercept.patterns import methods
from mmjax.intercept.run import LayerNeededError, Run
from mmjax.intercept.survey import survey


def replacing(
    apply: Callable[..., Any],
    visit: Callable[[Run, str, Any, Call], Any],
    *,
    patterns: Iterable[str],
    given: Mapping[str, Any] | None = None,
    check: Callable[[Run], Any] = lambda run: None,
) -> Callable[..., Any]:
    """`apply` in which `visit(run, address, value, call)` returns what takes the place of `value`.

    Where `visit` asks for the layer in a stack, `apply` is traced once more, to learn how deep the stack is.

    Args:
      apply: a function that calls Linen modules.
      visit: acts at every address of the methods that the patterns are about.
      patterns: of addresses.
      given: see `Run`.
      check: called with the run when it is over.
    """
    names = methods(patterns)

    @functools.wraps(apply)
    def replaced(*args: Any, **kwargs: Any) -> Any:
        def attempt(stacks: Mapping[str, tuple[int, ...]] | None) -> tuple[bool, Any]:
            run = Run(visit, methods=names, stacks=stacks, given=given)
            try:
                output = run(apply, args, kwargs)
            except LayerNeededError as needed:
                if needed.run is not run:
                    raise
                return False, None
            check(run)
            return True, output

        done, output = attempt(None)
        if not done:
            _, output = attempt(survey(apply, args, kwargs, methods=names).stacks)
        return output

    return replaced
