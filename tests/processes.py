"""Programs of several processes on this machine, one CPU device each."""

import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent


def run(module: str, *arguments: object, processes: int = 2) -> list[list[str]]:
    """The lines that each of `processes` prints; raises AssertionError with their errors if one fails.

    A process is `python -m module <coordinator> <processes> <process> <arguments>`.
    """
    import jax

    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
    }
    running = [
        subprocess.Popen(
            [sys.executable, "-m", module, *map(str, (coordinator, processes, process, *arguments))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        )
        for process in range(processes)
    ]
    try:
        ended = [process.communicate(timeout=300) for process in running]
    finally:
        for process in running:
            process.kill()
    assert not any(process.returncode for process in running), "\n".join(errors[-3000:] for _, errors in ended)
    return [[line for line in out.splitlines() if not line.startswith("[Gloo]")] for out, _ in ended]
