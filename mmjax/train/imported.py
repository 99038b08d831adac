"""The workdir of a model that came from elsewhere: a run of no steps."""

import pathlib
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from mmjax.convert.folder import new_folder
from mmjax.data import ImageSpec, Tokenizer
from mmjax.models import DualEncoder, describe_model
from mmjax.optim import partition_params
from mmjax.train.checkpoint import Checkpointer
from mmjax.train.state import TrainState
from mmjax.train.workdir import write_config, write_inputs


class Importable(Protocol):
    """A model with all that is needed to use it, such as `mmjax.convert.Bundle`; what is not known is None."""

    @property
    def model(self) -> DualEncoder: ...
    @property
    def params(self) -> Mapping[str, Any]: ...
    @property
    def tokenizer(self) -> Tokenizer | None: ...
    @property
    def image(self) -> ImageSpec | None: ...
    @property
    def context_length(self) -> int | None: ...


def write_imported(workdir: str | pathlib.Path, bundle: Importable) -> None:
    """Writes the workdir of a run of the method "pretrained", which `load_run` reads and `config.init_from` names.

    Args:
      workdir: the folder to make; it may not exist. It appears whole or not at all.
      bundle: model, parameters, tokenizer, preprocessing, context length.

    Raises:
      FileExistsError: the folder exists.
    """
    data = {} if bundle.context_length is None else {"context_length": bundle.context_length}
    config = {"method": {"name": "pretrained"}, "model": describe_model(bundle.model), "data": data}
    params = jax.tree.map(jnp.asarray, dict(bundle.params))
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        trainable=params,
        frozen={},
        opt_state={},
        stats={},
        ema=None,
        key=jax.random.key_data(jax.random.key(0)),
        healthy=jnp.ones((), bool),
    )
    with new_folder(workdir) as folder:
        write_inputs(folder, tokenizer=bundle.tokenizer, image=bundle.image)
        checkpointer = Checkpointer(folder / "checkpoints")
        checkpointer.save(0, state, partition_params(params), data={}, config=config)
        checkpointer.wait()
        checkpointer.close()
        write_config(folder, config)
