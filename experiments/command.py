"""How every binary starts: no stray arguments, quiet libraries, and errors that a user can mend in one line."""

import os
import pathlib
import sys
from collections.abc import Callable

from absl import app, flags, logging

_CACHE = flags.DEFINE_string(
    "compilation_cache",
    None,
    "Folder of compiled programs, shared by all runs; default: $JAX_COMPILATION_CACHE_DIR, else mmjax in the user's "
    "cache. Empty: none.",
)


def run(main: Callable[[], None]) -> None:
    """Parses flags and calls `main`; the library's own errors become a line on stderr and exit code 1."""

    def guarded(argv: list[str]) -> None:
        if len(argv) > 1:
            raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
        logging.set_verbosity(logging.WARNING)
        use_compilation_cache(_CACHE.value)
        try:
            main()
        except Exception as error:
            if not _is_ours(error):
                raise
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)

    app.run(guarded)


def use_compilation_cache(folder: str | None) -> None:
    """Has jax keep every program that took a second or more to compile, so that a restart need not compile it again.

    The folder belongs to the machine and not to the run, hence a flag and not a key of the config.

    Args:
      folder: None = `JAX_COMPILATION_CACHE_DIR`, else `mmjax` in the user's cache; "" = none.
    """
    if folder is None:
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        folder = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(home, "mmjax", "programs")))
    # jax reads it when it is imported, which a binary that needs no jax never does.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    if "jax" in sys.modules:
        sys.modules["jax"].config.update("jax_compilation_cache_dir", folder or None)


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
