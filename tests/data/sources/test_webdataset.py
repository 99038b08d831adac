import gzip
import io
import os
import tarfile

import numpy as np
import pytest

from mmjax.data.records import CorruptRecordError
from mmjax.data.sources import _tar, build_source
from mmjax.data.sources.webdataset import find_shards


def tar_bytes(members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


@pytest.fixture
def source(tmp_path):
    def build(*members, **settings):
        (tmp_path / "shard.tar").write_bytes(tar_bytes(members))
        return build_source("webdataset", path=tmp_path / "shard.tar", **settings)

    return build


def test_members_of_a_key_are_a_record(source):
    rows = source(
        ("x/1.jpg", b"picture"),
        ("x/1.txt", b"a dog\n"),
        ("2.json", b'{"caption": "two", "label": 4, "id": 17, "url": null, "image": "/etc/hostname"}'),
        ("2.PNG", b"P" * 600),
        ("./3.txt", "ö".encode()),
        ("x/1.cls", b"3\n"),
        ("3.wav", b"RIFF"),
        ("2.seg.png", b"mask"),
    )
    assert [rows[i] for i in range(len(rows))] == [
        {"id": "x/1", "image": b"picture", "captions": ["a dog"], "label": 3},
        {"id": "17", "image": b"P" * 600, "captions": ["two"], "label": 4, "url": None, "seg.png": b"mask"},
        {"id": "3", "captions": ["ö"], "wav": b"RIFF"},
    ]


def test_the_text_member_wins_over_json(source):
    assert source(("1.txt", b"text"), ("1.json", b'{"caption": "json", "captions": ["json"]}'))[0]["captions"] == [
        "text"
    ]


def test_a_path_in_a_shard_opens_no_file(source):
    rows = source(("1.json", b'{"caption": "x", "image": "/etc/hostname"}'))
    assert "image" not in rows[0]


def test_names_of_classes(source):
    rows = source(("1.txt", b"x"), ("1.cls", b"dog"), class_names=["cat", "dog"])
    assert rows[0]["label"] == 1
    assert rows.class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("1.txt", b"\xff")], ".txt is not UTF-8"),
        ([("1.txt", b" \n")], "caption 0 is str ''"),
        ([("1.txt", b"x"), ("1.json", b"{")], ".json is not JSON"),
        ([("1.txt", b"x"), ("1.json", b"[]")], ".json holds list, expected an object"),
        ([("1.txt", b"x"), ("1.json", b"\xff")], ".json is not JSON"),
        ([("1.txt", b"x"), ("1.cls", b"dog")], "label is 'dog'; expected an integer"),
        ([("1.jpg", b"x"), ("1.png", b"x")], "two pictures, among jpg, png"),
        ([("1.jpg", b"")], "image is an empty bytes"),
        ([("1.wav", b"x")], "neither image nor captions among its fields (id, wav)"),
        ([("1.json", b'{"captions": 3}')], "captions is int 3"),
    ],
)
def test_a_bad_record_is_named(source, members, reason):
    rows = source(("0.txt", b"fine"), *members)
    assert rows[0]["captions"] == ["fine"]
    with pytest.raises(CorruptRecordError) as caught:
        rows[1]
    assert caught.value.where.endswith("shard.tar key 1")
    assert reason in caught.value.reason


def test_records_of_many_shards_by_position(tmp_path):
    counts = [3, 1, 4, 2]
    for shard, count in enumerate(counts):
        members = [(f"{shard}-{i}.txt", f"caption {shard} {i}".encode()) for i in range(count)]
        (tmp_path / f"train-{shard:03d}.tar").write_bytes(tar_bytes(members))
    rows = build_source("webdataset", path=f"{tmp_path}/train-{{000..003}}.tar")
    expected = [f"{shard}-{i}" for shard, count in enumerate(counts) for i in range(count)]
    assert [rows[i]["id"] for i in range(len(rows))] == expected
    assert rows[4]["captions"] == ["caption 2 0"]
    assert rows.where(4) == f"{tmp_path}/train-002.tar key 2-0"


def test_patterns(tmp_path):
    for name in ("a-0.tar", "a-1.tar", "b-0.tar", "a-1.txt"):
        (tmp_path / name).touch()

    def found(*patterns):
        return [path.name for path in find_shards([f"{tmp_path}/{pattern}" for pattern in patterns])]

    assert found("*.tar") == ["a-0.tar", "a-1.tar", "b-0.tar"]
    assert found("a-{1..0}.tar") == ["a-1.tar", "a-0.tar"]
    assert found("{b,a}-0.tar", "a-1.tar") == ["b-0.tar", "a-0.tar", "a-1.tar"]
    assert found("{b,a}-*.tar") == ["b-0.tar", "a-0.tar", "a-1.tar"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a-{0..7}.tar", r"7 shards not found: .*a-1\.tar, .*a-5\.tar, \.\.\. \(looked from"),
        ("c*.tar", r"1 shards not found: .*c\*\.tar"),
        ("c.tar", r"1 shards not found: .*c\.tar"),
    ],
)
def test_a_missing_shard_is_named(tmp_path, pattern, message):
    (tmp_path / "a-0.tar").touch()
    with pytest.raises(FileNotFoundError, match=message):
        find_shards(tmp_path / pattern)


WHOLE = tar_bytes([("1.txt", b"one"), ("2.txt", b"two")])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(WHOLE), "is no plain tar"),
        (b"", "is no plain tar"),
        (b"no tar at all" * 100, "is no plain tar"),
        (WHOLE[:700], "is no plain tar"),
        (WHOLE[:1100], "is damaged at byte 1024 of 1100"),
        (WHOLE[:1536] + b"tw", "is no plain tar"),
        (WHOLE[:1024] + b"x" * 300 + WHOLE[1324:], "is damaged at byte 1024 of 10240"),
        (WHOLE + WHOLE, "is damaged at byte 2048 of 20480"),
        (tar_bytes([]), "holds no files"),
        (tar_bytes([("1.txt", b"a"), ("1.txt", b"b")]), "1.txt comes twice"),
    ],
)
def test_a_bad_shard_stops_at_once(tmp_path, content, message):
    (tmp_path / "shard.tar").write_bytes(content)
    with pytest.raises(ValueError) as caught:
        build_source("webdataset", path=tmp_path / "shard.tar")
    assert message in str(caught.value)
    assert "shard.tar" in str(caught.value)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_are_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        link = tarfile.TarInfo("1.txt")
        link.type, link.linkname = kind, "/etc/hostname"
        tar.addfile(link)
    with pytest.raises(ValueError, match=r"1\.txt is a link; write the tar with --dereference"):
        build_source("webdataset", path=tmp_path / "shard.tar")


def test_folders_and_long_names(tmp_path):
    (tmp_path / "deep" / ("n" * 150)).mkdir(parents=True)
    (tmp_path / "deep" / ("n" * 150) / "1.txt").write_bytes(b"x")
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        tar.add(tmp_path / "deep", arcname="deep")
    rows = build_source("webdataset", path=tmp_path / "shard.tar")
    assert rows[0] == {"id": f"deep/{'n' * 150}/1", "captions": ["x"]}


def test_the_index_is_kept_and_renewed(tmp_path, monkeypatch):
    shard, folder = tmp_path / "shard.tar", tmp_path / "indices"
    shard.write_bytes(WHOLE)

    def build():
        return build_source("webdataset", path=shard, index_folder=folder)

    assert len(build()) == 2
    assert [file.name for file in folder.iterdir()] == ["shard.tar.index.npz"]
    with monkeypatch.context() as patched:
        patched.setattr(_tar, "scan", lambda shard: pytest.fail("scanned again"))
        assert build()[1] == {"id": "2", "captions": ["two"]}
    shard.write_bytes(tar_bytes([("3.txt", b"three")]))
    os.utime(shard, ns=(0, 1))
    assert build()[0] == {"id": "3", "captions": ["three"]}


def test_a_shard_that_vanishes_is_a_bad_record(tmp_path):
    (tmp_path / "shard.tar").write_bytes(WHOLE)
    rows = build_source("webdataset", path=tmp_path / "shard.tar")
    (tmp_path / "shard.tar").unlink()
    with pytest.raises(CorruptRecordError, match="No such file"):
        rows[0]


def test_the_index_points_at_the_contents(tmp_path):
    (tmp_path / "shard.tar").write_bytes(WHOLE)
    index = _tar.scan(tmp_path / "shard.tar")
    np.testing.assert_array_equal(index.first, [0, 1, 2])
    assert list(index.members(1)) == [("txt", 1536, 3)]
    assert WHOLE[1536:1539] == b"two"
