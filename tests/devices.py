"""Programs on several simulated devices: a process decides on their number once, so each program gets its own."""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent


def run(module: str, *, devices: int = 8) -> Any:
    """What `python -m module` prints in its last line, as JSON; raises AssertionError with its errors if it fails."""
    import jax

    found = subprocess.run(
        [sys.executable, "-W", "error", "-m", module],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ
        | {
            # Small programs that run once: most of their time is LLVM's.
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0",
            # XLA's threads wait in collectives: with as many as cores, two collectives at once can starve each other.
            "NPROC": "64",
            "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        },
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout.splitlines()[-1])
