import sys

import pytest

from mmjax.convert import MissingExtraError
from mmjax.convert.extras import require


def test_missing_package_is_one_line_that_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError) as error:
        require("torch", extra="torch", purpose="verification")
    assert str(error.value) == "verification needs torch, which is not installed: pip install 'mmjax[torch]'"


def test_a_broken_package_shows_its_own_error(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import no_such_module_anywhere")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_module_anywhere"):
        require("broken_package", extra="torch", purpose="verification")
