import base64
import io

import numpy as np
from PIL import Image

from mmjax.evaluate.report.thumbnails import thumbnail


def picture(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_thumbnails_keep_tiny_pictures_to_the_pixel_and_shrink_large_ones_whole():
    rng = np.random.default_rng(0)
    tiny = rng.integers(0, 256, (32, 20, 3), dtype=np.uint8)
    small = thumbnail(tiny)
    assert small.tiny
    np.testing.assert_array_equal(np.asarray(picture(small.uri)), tiny)
    large = thumbnail(np.zeros((400, 200, 3), np.uint8), side=100)
    assert not large.tiny
    assert picture(large.uri).size == (50, 100)
    assert large.uri.startswith("data:image/webp;base64,")
