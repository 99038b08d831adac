"""What tests do to the files of a folder."""

import json
from pathlib import Path
from typing import Any


def edit(path: Path, **changes: Any) -> None:
    """Sets keys of a JSON file; a dict is merged into the one that is there, and None takes the key away."""
    config = json.loads(path.read_text(encoding="utf-8"))
    for key, value in changes.items():
        config[key] = config[key] | value if isinstance(value, dict) and isinstance(config.get(key), dict) else value
    kept = {key: value for key, value in config.items() if value is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")
