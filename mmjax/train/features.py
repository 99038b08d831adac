"""The feature banks of a run: opened for its records, compared with its towers."""

from collections.abc import Mapping
from typing import Any

from mmjax import parallel
from mmjax.config import Section, call
from mmjax.data.bank import FeatureBank, describe_source
from mmjax.evaluate.bank import describe_tower, tower_params
from mmjax.method import Params
from mmjax.models import build_dual_encoder


def open_banks(features: Mapping[str, str], source: Mapping[str, Any]) -> dict[str, FeatureBank]:
    """The banks of `config.data.features`, each of the source `config.data.train`; all processes must call it.

    Args:
      features: name -> folder; "image" and "text" stand in for that input, other names are teachers'.
      source: name and settings of the source.

    Raises:
      StaleBankError: a bank is of another source.
      FileNotFoundError: a folder is no bank.
      ConfigError: so it is on another process, which may see other files.
    """

    def open_and_check() -> dict[str, FeatureBank]:
        banks = {name: FeatureBank(folder) for name, folder in features.items()}
        for bank in banks.values():
            bank.check(source=describe_source(**source))
        return banks

    return parallel.together(open_and_check)


def check_towers(config: Section, params: Params) -> None:
    """Compares the banks that stand in for a tower with the run's own tower, settings and parameters.

    Args:
      config: of the run; `data.features` and `model` are read.
      params: that the run goes on from, frozen ones included.

    Raises:
      StaleBankError: a bank is of another tower, or of other parameters.
      ConfigError: so it is on another process.
    """
    folders = {name: folder for name, folder in config.data.get("features", {}).items() if name in ("image", "text")}
    # Processes put split parameters together for it: all of them, before any can raise.
    hashes = {name: parallel.params_hash(tower_params(params, name)) for name in folders}

    def check() -> None:
        for name, folder in folders.items():
            tower = describe_tower(getattr(call(build_dual_encoder, config.model), name))
            FeatureBank(folder).check(tower=tower, params_hash=hashes[name])

    parallel.together(check)
