"""Embeddings of a source's pictures and captions, and which belong together."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmjax import ops
from mmjax.config import ConfigError
from mmjax.evaluate.embed import Encoders, embed_images, embed_texts
from mmjax.method import Params
from mmjax.paths import suggestion


class Pairs(NamedTuple):
    """Pictures and captions of a source; those of one group belong together.

    Attributes:
      images: `[N, D]` float32, of unit length.
      index: `[N]` int, position of each picture in the source.
      image_groups: `[N]` int.
      captions: `M` texts; a group has each of its texts once.
      texts: `[M, D]` float32, of unit length.
      text_groups: `[M]` int.
      links: `[N]` int, the caption that stands first with each picture.
    """

    images: np.ndarray
    index: np.ndarray
    image_groups: np.ndarray
    captions: Sequence[str]
    texts: np.ndarray
    text_groups: np.ndarray
    links: np.ndarray

    @property
    def finite(self) -> bool:
        """Whether every embedding is a number."""
        return bool(np.isfinite(self.images).all() and np.isfinite(self.texts).all())

    def spread(self, count: int) -> np.ndarray:
        """`count` rows of pictures at even distances, no two of one group; all groups where there are fewer."""
        firsts = np.sort(np.unique(self.image_groups, return_index=True)[1])
        return firsts[np.linspace(0, len(firsts) - 1, min(count, len(firsts))).round().astype(int)]


def embed_pairs(
    encoders: Encoders,
    params: Params,
    source: Sequence[Mapping[str, Any]],
    *,
    max_records: int,
    group: str | None = None,
) -> Pairs:
    """Encodes the first `max_records` pictures of a source and all their captions.

    Args:
      encoders: of the model.
      params: of the model.
      source: random access to records with `image` and `captions`.
      max_records: how many at most; unreadable pictures are left out.
      group: field whose equal values make pictures and captions belong together; None makes a picture a group.

    Raises:
      ConfigError: records have no field `group`.
    """
    pictures = embed_images(encoders, params, source, max_records=max_records)
    numbers: dict[Any, int] = {}
    captions: dict[tuple[str, int], int] = {}
    image_groups, links = [], []
    for position in pictures.index.tolist():
        record = source[position]
        if group is not None and group not in record:
            raise ConfigError(f"embed_pairs: records have no field {group!r}; {suggestion(group, record)}")
        number = numbers.setdefault(position if group is None else record[group], len(numbers))
        rows = [captions.setdefault((text, number), len(captions)) for text in record["captions"]]
        image_groups.append(number)
        links.append(rows[0])
    texts = [text for text, _ in captions]
    return Pairs(
        images=_unit(pictures.embeds),
        index=pictures.index,
        image_groups=np.asarray(image_groups),
        captions=texts,
        texts=_unit(embed_texts(encoders, params, texts)),
        text_groups=np.asarray([number for _, number in captions]),
        links=np.asarray(links),
    )


def _unit(embeds: np.ndarray) -> np.ndarray:
    return np.asarray(ops.l2_normalize(embeds))
