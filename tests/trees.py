"""Trees of arrays, compared."""

from typing import Any

import numpy as np

from mmjax.paths import flatten


def assert_equal_trees(found: Any, wanted: Any) -> None:
    """Equal paths, and bit-equal leaves."""
    found, wanted = flatten(found), flatten(wanted)
    assert found.keys() == wanted.keys()
    for path, leaf in wanted.items():
        np.testing.assert_array_equal(found[path], leaf, err_msg=path)
