"""What a report shows of pictures and captions: the matrix, the galleries, the plane."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from mmjax import metrics
from mmjax.data import decode_image
from mmjax.data.records import is_synthetic
from mmjax.evaluate.embed import Encoders
from mmjax.evaluate.pairs import Pairs, embed_pairs
from mmjax.evaluate.report.gallery import Gallery, gallery
from mmjax.evaluate.report.held_out import HeldOut
from mmjax.evaluate.report.plane import joint_projection, plane
from mmjax.evaluate.report.similarity import Heatmap, chain, similarity_heatmap
from mmjax.evaluate.report.thumbnails import Thumbnail, thumbnail
from mmjax.method import Params

_MOST_RECORDS = 1000
_MATRIX, _PLANE = 48, 300


class Sections(NamedTuple):
    """Pictures and captions as the page shows them.

    Attributes:
      words: name and settings of the source.
      synthetic: whether a program made the data.
      pictures, captions, records: how many are shown, and how many records the source has.
      picture: number of a picture -> its thumbnail.
      caption: number of a caption -> its text.
      own_caption: number of a picture -> number of its caption.
      matrix: pictures of the matrix, in its order, each with the cosine to its own caption.
      heatmap: captions (rows) against pictures (columns).
      text_to_image, image_to_text: examples in both directions.
      plane: figure of `plane_pairs` pairs.
      explained: shares of the variance along the two directions of the plane.
      gap: distance of the two modalities' centres.
      own, other: mean cosine of what belongs together and of what does not, None where all does.
    """

    words: str
    synthetic: bool
    pictures: int
    captions: int
    records: int
    picture: Callable[[int], Thumbnail]
    caption: Callable[[int], str]
    own_caption: Callable[[int], int]
    matrix: list[tuple[int, float]]
    heatmap: Heatmap
    text_to_image: Gallery
    image_to_text: Gallery
    plane: Markup
    plane_pairs: int
    explained: tuple[float, float]
    gap: float
    own: float
    other: float | None


def pair_sections(encoders: Encoders, params: Params, data: HeldOut | None) -> Sections | str:
    """The sections, or the sentence that says why there are none."""
    if data is None or not len(data.source):
        return "No held-out pictures with captions were given."
    missing = sorted({"image", "text"} - set(encoders.functions))
    if missing:
        return f"This method has no encoder of {' and '.join(missing)}."
    absent = [field for field in ("image", "captions") if field not in data.source[0]]
    if absent:
        return f"The records have no {' and no '.join(absent)}."
    limit = min(data.max_records or _MOST_RECORDS, _MOST_RECORDS)
    pairs = embed_pairs(encoders, params, data.source, max_records=limit, group=data.group)
    if not pairs.finite:
        return "The embeddings of this model are not finite."
    return _sections(pairs, data.source, data.words)


def _sections(pairs: Pairs, source: Sequence[Mapping[str, Any]], words: str) -> Sections:
    scores = pairs.texts @ pairs.images.T
    positives = pairs.text_groups[:, None] == pairs.image_groups

    matrix = pairs.spread(_MATRIX)
    matrix = matrix[chain(pairs.images[matrix])]
    square = scores[np.ix_(pairs.links[matrix], matrix)]

    projection = joint_projection(pairs.images, pairs.texts)
    dots = pairs.spread(_PLANE)

    @functools.cache
    def picture(number: int) -> Thumbnail:
        return thumbnail(decode_image(source[int(pairs.index[number])]["image"]))

    return Sections(
        words=words,
        synthetic=is_synthetic(source),
        pictures=len(pairs.images),
        captions=len(pairs.captions),
        records=len(source),
        picture=picture,
        caption=lambda number: pairs.captions[number],
        own_caption=lambda number: int(pairs.links[number]),
        matrix=list(zip(matrix.tolist(), np.diagonal(square).tolist(), strict=True)),
        heatmap=similarity_heatmap(square),
        text_to_image=gallery(scores, positives),
        image_to_text=gallery(scores.T, positives.T),
        plane=plane(projection.a[dots], projection.b[pairs.links[dots]]),
        plane_pairs=len(dots),
        explained=projection.explained,
        gap=float(metrics.modality_gap(pairs.images, pairs.texts)["gap"]),
        own=float(scores[positives].mean()),
        other=float(scores[~positives].mean()) if not positives.all() else None,
    )
