"""Records from a prepared TensorFlow Datasets folder, by `tfds.data_source`: TensorFlow is not needed."""

import os
from typing import Any

from mmjax.data.records import CorruptRecordError, Record
from mmjax.data.sources._columns import Columns, TableSource
from mmjax.paths import flatten, suggestion, unflatten


class TfdsSource(TableSource):
    """One split of a prepared dataset, nested features by their paths, pictures as they were encoded.

    Args:
      records: what `tfds` reads.
      columns: which feature is which field.
    """

    def __init__(self, records: Any, columns: Columns):
        import tensorflow_datasets as tfds

        features = flatten(_nested(records.dataset_info.features))
        name = records.dataset_info.full_name
        for path in columns[:4]:
            if path is not None and path not in features:
                raise ValueError(f"{name} has no feature {path!r}; {suggestion(path, features)}")
        self._images = {path for path, feature in features.items() if isinstance(feature, tfds.features.Image)}
        # Decoding is the transforms' work; and an undecodable picture must be one bad record, not the end of the run.
        records.decoders = unflatten({path: tfds.decode.SkipDecoding() for path in self._images})
        label = features.get(columns.label or "label")
        self.class_names = tuple(label.names) if isinstance(label, tfds.features.ClassLabel) else ()
        self.location = f"{name} split {records.split!r}"
        self._records = records
        self._columns = columns

    def __len__(self) -> int:
        return len(self._records)

    def read(self, index: int) -> Record:
        where = self.where(index)
        try:
            features = flatten(self._records[index])
        except Exception as error:  # Riegeli, protobuf and the features have no error class in common.
            raise CorruptRecordError(where, f"undecodable: {error}") from error
        row = {path: value if path in self._images else _text(value) for path, value in features.items()}
        return {"id": f"{self._records.split}:{index}", **self._columns.record(row, where=where)}

    def where(self, index: int) -> str:
        return f"{self.location} record {index}"


def build(
    *,
    dataset: str | os.PathLike[str],
    split: str = "train",
    data_dir: str | os.PathLike[str] | None = None,
    image_column: str | None = None,
    caption_column: str | None = None,
    label_column: str | None = None,
    id_column: str | None = None,
) -> TfdsSource:
    """The records of a prepared dataset; nothing is downloaded.

    Prepare it where TensorFlow is, with random access: `tfds build <dataset> --file_format=array_record`.

    Args:
      dataset: the prepared folder that holds `dataset_info.json`, or a name such as `mnist:3.0.1`.
      split: as in `tfds.load`, slices such as `train[:90%]` too.
      data_dir: folder of prepared datasets, for a name; TFDS's own default otherwise.
      image_column: path of the picture's feature; `image` by default, if there.
      caption_column: path of a caption or a sequence of captions, such as `captions/text`; `captions`, else
        `caption` by default, if there.
      label_column: path of the class; `label` by default, if there.
      id_column: path of the record's name, such as `image/filename`; by default the split and the position.

    Returns:
      A random-access source; `class_names` are those of the class feature.

    Raises:
      FileNotFoundError: the dataset is not there, or its files have no random access.
      ValueError: there is no such split or feature.
    """
    columns = Columns(image_column, caption_column, label_column, id_column)
    return TfdsSource(_open(os.fspath(dataset), split, data_dir), columns)


def _open(dataset: str, split: str, data_dir: str | os.PathLike[str] | None) -> Any:
    import tensorflow_datasets as tfds

    try:
        if os.path.isdir(dataset):
            return tfds.builder_from_directory(dataset).as_data_source(split=split)
        return tfds.data_source(dataset, split=split, data_dir=data_dir, download=False)
    except (OSError, ImportError, NotImplementedError, AssertionError, tfds.core.DatasetNotFoundError) as error:
        # The ways in which TFDS says that it has no such files, or that its code for the name needs TensorFlow.
        fix = f"prepare it (`tfds build {dataset} --file_format=array_record`) and set data_dir, or give its folder"
        raise FileNotFoundError(f"no dataset {dataset!r} with random access; {fix}") from error


def _nested(features: Any) -> Any:
    """Features as nested dicts: a sequence of dicts reads as a dict of sequences."""
    inner = getattr(features, "feature", features)
    return {name: _nested(part) for name, part in inner.items()} if hasattr(inner, "items") else features


def _text(value: Any) -> Any:
    """Bytes that are UTF-8 as text, in lists too: TFDS gives texts as bytes."""
    if isinstance(value, list | tuple):
        return [_text(item) for item in value]
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
