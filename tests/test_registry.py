import pytest

from mmjax import registry
from mmjax.config import ConfigError, Section
from mmjax.methods import build_method


def test_names_are_the_public_files_of_the_folder():
    assert "clip" in registry.names("mmjax.methods")


def test_unknown_method_lists_near_misses():
    with pytest.raises(ConfigError, match=r"mmjax/methods has no 'clipp'; did you mean 'clip'"):
        build_method(Section({"method": {"name": "clipp"}, "model": {"preset": "nano/8"}}))
