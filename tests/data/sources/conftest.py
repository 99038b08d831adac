import io

import numpy as np
import pytest
from PIL import Image


def _png(value: int = 0, size: tuple[int, int] = (2, 2)) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def png():
    """A function from a grey value to an encoded picture."""
    return _png


@pytest.fixture
def pictures(tmp_path):
    """A folder with the pictures `a.png` and `sub/b.png`."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.png").write_bytes(_png(1))
    (tmp_path / "sub" / "b.png").write_bytes(_png(2))
    return tmp_path
