"""How every binary starts: no stray arguments, quiet libraries, and errors that a user can mend in one line."""

import sys
from collections.abc import Callable

from absl import app, logging


def run(main: Callable[[], None]) -> None:
    """Parses flags and calls `main`; the library's own errors become a line on stderr and exit code 1."""

    def guarded(argv: list[str]) -> None:
        if len(argv) > 1:
            raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
        logging.set_verbosity(logging.WARNING)
        try:
            main()
        except Exception as error:
            if not _is_ours(error):
                raise
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)

    app.run(guarded)


def _is_ours(error: BaseException) -> bool:
    """Whether the error, or the line that raised it, is mmjax's, and so its message was written for a user."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    raised_in = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    own = ("mmjax", "configs")
    return type(error).__module__.split(".")[0] in own or (
        isinstance(error, ValueError | TypeError | OSError) and raised_in.split(".")[0] in own
    )
