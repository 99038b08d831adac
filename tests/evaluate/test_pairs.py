import numpy as np
import pytest

from mmjax.evaluate.pairs import embed_pairs
from tests.evaluate.conftest import NAMES


def test_each_picture_is_linked_to_its_caption(encoders, params, source):
    pairs = embed_pairs(encoders, params, source, max_records=5)
    assert list(pairs.captions) == NAMES[:5]
    np.testing.assert_array_equal(pairs.links, np.arange(5))
    np.testing.assert_array_equal(pairs.images, np.eye(8, dtype=np.float32)[:5])
    np.testing.assert_allclose(np.linalg.norm(pairs.texts, axis=1), 1, rtol=1e-6)


def test_captions_of_a_group_are_kept_once_and_spread_takes_one_picture_of_each(encoders, params):
    class Drawn:
        def __len__(self):
            return 4

        def __getitem__(self, index):
            names = [["red", "blue"], ["blue", "red"], ["red"], ["cyan"]][index]
            return {"image": np.zeros((4, 4, 3), np.uint8), "captions": names, "concept": index // 2}

    pairs = embed_pairs(encoders, params, Drawn(), max_records=4, group="concept")
    assert list(pairs.captions) == ["red", "blue", "red", "cyan"]
    assert pairs.text_groups.tolist() == [0, 0, 1, 1]
    assert pairs.image_groups.tolist() == [0, 0, 1, 1]
    assert pairs.links.tolist() == [0, 1, 2, 3]
    assert pairs.spread(10).tolist() == [0, 2]


def test_a_group_that_no_record_has_is_an_error_with_near_misses(encoders, params, source):
    with pytest.raises(ValueError, match="no field 'halv'; did you mean 'half'"):
        embed_pairs(encoders, params, source, max_records=2, group="halv")
