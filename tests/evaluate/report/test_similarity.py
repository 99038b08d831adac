import base64
import io

import numpy as np
from PIL import Image

from mmjax.evaluate.report import similarity_heatmap
from mmjax.evaluate.report.similarity import chain


def test_heatmap_has_a_pixel_an_entry_from_clear_to_full():
    heatmap = similarity_heatmap(np.array([[1.0, -1.0], [0.0, 0.5]]))
    picture = Image.open(io.BytesIO(base64.b64decode(heatmap.uri.partition(",")[2])))
    opacity = np.asarray(picture.convert("RGBA"))[..., 3]
    assert opacity.tolist() == [[255, 0], [128, 191]]
    assert (heatmap.low, heatmap.high, heatmap.own, heatmap.other) == (-1.0, 1.0, 0.75, -0.5)


def test_heatmap_of_equal_scores_finds_nothing():
    heatmap = similarity_heatmap(np.full((3, 3), 0.5))
    assert (heatmap.row_hits, heatmap.column_hits) == (0, 0)


def test_heatmap_of_one_pair_has_no_rest():
    assert similarity_heatmap(np.array([[0.5]])).other is None


def test_chain_visits_every_row_once_and_neighbours_in_turn():
    angles = np.array([0.0, 2.0, 1.0, 3.0])
    assert chain(np.stack([np.cos(angles), np.sin(angles)], axis=1)).tolist() == [0, 2, 1, 3]
