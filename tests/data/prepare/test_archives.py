import io
import random
import tarfile

import pytest

from mmjax.data.prepare._archives import find_root, unpacked


def tar_bytes(members, mode="w:gz"):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def deb_bytes(members):
    def entry(name, content):
        header = f"{name:16s}{0:<12d}{0:<6d}{0:<6d}{'100644':8s}{len(content):<10d}`\n".encode()
        return header + content + b"\n" * (len(content) % 2)

    parts = [("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), ("data.tar.xz", tar_bytes(members, "w:xz"))]
    return b"!<arch>\n" + b"".join(entry(*part) for part in parts)


NOISE = random.Random(0).randbytes(5000)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.tgz", tar_bytes({"a/b.txt": b"hello"})),
        ("x.tar", tar_bytes({"a/b.txt": b"hello"}, "w")),
        ("x.tar.xz", tar_bytes({"a/b.txt": b"hello"}, "w:xz")),
        ("x.deb", deb_bytes({"./a/b.txt": b"hello"})),
    ],
)
def test_an_archive_is_a_folder_for_a_while(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with unpacked(tmp_path / name) as folder:
        assert (folder / "a" / "b.txt").read_bytes() == b"hello"
    assert not folder.exists()


def test_a_folder_stays_where_it_is(tmp_path):
    with unpacked(tmp_path) as folder:
        assert folder == tmp_path
    assert tmp_path.exists()


@pytest.mark.parametrize("name", ["../escaped.txt", "a/../../escaped.txt"])
def test_no_member_lands_outside(tmp_path, name):
    (tmp_path / "x.tgz").write_bytes(tar_bytes({name: b"x"}))
    with pytest.raises(ValueError, match=r"cannot unpack .*outside"), unpacked(tmp_path / "x.tgz"):
        pytest.fail("opened")
    assert [path.name for path in tmp_path.iterdir()] == ["x.tgz"]


def test_no_link_leads_outside(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(link)
    with pytest.raises(ValueError, match="cannot unpack"), unpacked(tmp_path / "x.tar"):
        pytest.fail("opened")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no archive" * 100,
        b"!<arch>\n",
        b"!<arch>\n" + b"x" * 59,
        deb_bytes({"a": NOISE})[:-2000],
        tar_bytes({"a": NOISE})[:-2000],
        tar_bytes({"a": NOISE}, "w")[:3000],
        tar_bytes({"a": NOISE})[:1000] + bytes(500) + tar_bytes({"a": NOISE})[1500:],
        deb_bytes({"a": NOISE})[:1000] + bytes(500) + deb_bytes({"a": NOISE})[1500:],
    ],
)
def test_a_broken_archive_is_named(tmp_path, content):
    (tmp_path / "x.deb").write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot unpack .*x\.deb .*expected a folder, a tar or a \.deb"):
        unpacked(tmp_path / "x.deb").__enter__()


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.tgz not found"), unpacked(tmp_path / "absent.tgz"):
        pytest.fail("opened")


def test_find_root(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "x.json").touch()
    assert find_root(tmp_path, "x.json", "package", source="s") == tmp_path / "package"
    (tmp_path / "x.json").touch()
    assert find_root(tmp_path, "x.json", "package", source="s") == tmp_path
    with pytest.raises(FileNotFoundError, match=r"s\.tgz has no y\.json, nor package/y\.json"):
        find_root(tmp_path, "y.json", "package", source="s.tgz")
