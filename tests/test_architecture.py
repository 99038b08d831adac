"""The house rules that a program can check."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FLOORS = {
    "_checks": 0,
    "paths": 0,
    "config": 0,
    "registry": 0,
    "ops": 0,
    "parallel": 0,
    "losses": 1,
    "metrics": 1,
    "optim": 1,
    "models": 2,
    "intercept": 3,
    "data": 3,
    "convert": 3,
    "method": 3,
    "peft": 4,
    "methods": 5,
    "train": 6,
    "evaluate": 6,
}
SAME_FLOOR = {("train", "evaluate"), ("convert", "data")}
BASEMENT = {"_checks", "paths", "config", "registry"}
FILES = sorted(
    path for folder in ("mmjax", "experiments", "configs", "benchmarks") for path in ROOT.glob(f"{folder}/**/*.py")
)


def imports(path):
    """(module, whether it is imported at module level) of every import statement."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{a.name}" for a in node.names] if node.module == "mmjax" else [node.module]
            yield from ((name, id(node) in top) for name in names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in top) for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_only_go_down(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] != "mmjax" or len(parts) < 2 or parts[1] == "__init__":
        return
    room = parts[1]
    for module, _ in imports(path):
        names = module.split(".")
        if names[0] == "mmjax" and len(names) > 1 and names[1] in FLOORS:
            other = names[1]
            lower = FLOORS[other] < FLOORS[room] or other in BASEMENT
            assert other == room or lower or (room, other) in SAME_FLOOR, f"{room} imports {module}"
        assert names[0] not in ("experiments", "configs", "tests"), f"{room} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_small_and_heavy_packages_are_imported_late(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 400
    heavy = (
        "torch",
        "tensorflow",
        "transformers",
        "open_clip",
        "timm",
        "peft",
        "tensorflow_datasets",
        "onnx",
        "onnxruntime",
    )
    late = [m for m, at_top in imports(path) if at_top and m.split(".")[0] in heavy]
    assert not late or path.parts[-3] == "benchmarks"


def test_data_does_not_import_jax():
    for path in ROOT.glob("mmjax/data/**/*.py"):
        assert not [m for m, _ in imports(path) if m.split(".")[0] in ("jax", "flax", "optax")], path


def test_every_room_stands_on_a_floor():
    rooms = {p.stem for p in (ROOT / "mmjax").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert rooms - {"__init__"} <= FLOORS.keys()


def test_importing_the_library_loads_no_optional_package():
    program = (
        "import sys, mmjax, mmjax.train, mmjax.convert, mmjax.data, mmjax.intercept;"
        "print([m for m in ('torch', 'tensorflow', 'transformers', 'tensorflow_datasets') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
