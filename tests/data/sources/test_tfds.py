import contextlib
import io
import sys

import numpy as np
import pytest

from mmjax.data.records import CorruptRecordError
from mmjax.data.sources import build_source


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, png):
    """The folder of a data set with nested features, prepared without TensorFlow."""
    import tensorflow_datasets as tfds
    from etils import epath

    folder = tmp_path_factory.mktemp("tfds")

    class TinyPets(tfds.core.GeneratorBasedBuilder):
        __module__ = "pets"  # TFDS looks for files beside the code of a module in a package.
        pkg_dir_path = epath.Path(folder)
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            captions = tfds.features.Sequence({"text": tfds.features.Text(), "id": np.int64})
            features = {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "other": {"view": tfds.features.Image(shape=(None, None, 3)), "name": tfds.features.Text()},
                "captions": captions,
                "label": tfds.features.ClassLabel(names=["cat", "dog"]),
                "box": tfds.features.Tensor(shape=(2,), dtype=np.float32),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(4):
                yield (
                    i,
                    {
                        "image": io.BytesIO(png(i)),
                        "other": {"view": io.BytesIO(b"no picture"), "name": f"name {i}"},
                        "captions": [{"text": f"eins {i}", "id": 1}, {"text": "ö", "id": 2}][: i + 1],
                        "label": i % 2,
                        "box": [i, 0.5],
                    },
                )

    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        TinyPets(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder / "tiny_pets" / "1.0.0"


def records(source):
    return sorted((source[i] for i in range(len(source))), key=lambda record: record["label"])


def test_features_are_fields(prepared, png):
    source = build_source("tfds", dataset=prepared, caption_column="captions/text")
    assert len(source) == 4
    record = next(record for record in records(source) if record["other/name"] == "name 3")
    np.testing.assert_array_equal(record.pop("box"), np.float32([3, 0.5]))
    assert record.pop("id") in {f"train:{i}" for i in range(4)}
    assert record == {
        "image": png(3),
        "captions": ["eins 3", "ö"],
        "label": 1,
        "other/view": b"no picture",
        "other/name": "name 3",
        "captions/id": [1, 2],
    }
    assert source.class_names == ("cat", "dog")
    assert source.where(0) == "tiny_pets/1.0.0 split 'train' record 0"
    assert "tensorflow" not in sys.modules


def test_features_by_path(prepared):
    settings = {"image_column": "other/view", "caption_column": "other/name", "id_column": "other/name"}
    found = records(build_source("tfds", dataset=prepared, **settings))
    assert {record["image"] for record in found} == {b"no picture"}
    assert sorted(record["captions"] for record in found) == [[f"name {i}"] for i in range(4)]
    assert sorted(record["id"] for record in found) == [f"name {i}" for i in range(4)]


def test_a_slice_of_a_split(prepared):
    source = build_source("tfds", dataset=prepared, split="train[50%:]", caption_column="captions/text")
    whole = build_source("tfds", dataset=prepared, caption_column="captions/text")
    assert len(source) == 2
    assert [source[i]["other/name"] for i in range(2)] == [whole[i]["other/name"] for i in (2, 3)]


def test_captions_in_another_form_are_a_bad_record(prepared):
    source = build_source("tfds", dataset=prepared, caption_column="captions/id")
    with pytest.raises(CorruptRecordError, match="record 0: caption 0 is int64"):
        source[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "tran"}, "Unknown split 'tran'"),
        ({"caption_column": "captions/txt"}, "has no feature 'captions/txt'; did you mean 'captions/text'"),
        ({"label_column": "lable"}, "has no feature 'lable'; did you mean 'label'"),
    ],
)
def test_a_wrong_setting_stops_at_once(prepared, settings, message):
    with pytest.raises(ValueError) as caught:
        build_source("tfds", dataset=prepared, **settings)
    assert message in str(caught.value)


def test_data_that_is_not_there(prepared, tmp_path):
    for settings in ({"dataset": prepared.parent}, {"dataset": "tinny_pets", "data_dir": tmp_path}):
        with pytest.raises(FileNotFoundError, match=r"no dataset .* with random access; prepare it \(`tfds build"):
            build_source("tfds", **settings)
