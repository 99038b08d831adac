"""A PyTorch implementation, loaded from its files, and what it makes of fixed inputs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmjax.convert.extras import require
from mmjax.convert.probe import Probe


class Tower(NamedTuple):
    """A tower in PyTorch.

    Attributes:
      embed: pixels `[B, 3, H, W]` float, or token ids `[B, T]` and mask `[B, T]` int64, to embeddings `[B, D]`.
      blocks: modules whose outputs `[B, T, D]` are compared with those of our blocks, in order.
    """

    embed: Callable[..., Any]
    blocks: Sequence[Any]


class Network(NamedTuple):
    """A PyTorch implementation; what is None is not compared.

    Attributes:
      image, text: the towers.
      logits: pixels, token ids and mask, as the towers take them, to logits `[images, texts]`.
      preprocess: pictures, a list of uint8 `[H, W, 3]`, to pixels `[B, H, W, 3]` float32.
      tokenize: texts and a length to token ids `[B, T]` and their mask.
      facts: what a reader of the report wants to know: versions, classes.
    """

    image: Tower | None = None
    text: Tower | None = None
    logits: Callable[..., Any] | None = None
    preprocess: Callable[[Sequence[np.ndarray]], np.ndarray] | None = None
    tokenize: Callable[[Sequence[str], int], tuple[np.ndarray, np.ndarray]] | None = None
    facts: Mapping[str, str] = {}


def run_network(network: Network, probe: Probe) -> dict[str, np.ndarray]:
    """What the network makes of the probe, by the names of `run_bundle`.

    Its towers are given our pixels and token ids, so that a difference shows where it arises and not after it too.
    """
    torch = require("torch", extra="torch", purpose="verification")
    inputs: dict[str, tuple[Any, ...]] = {}
    outputs: dict[str, np.ndarray] = {}
    if probe.image is not None:
        inputs["image"] = (torch.from_numpy(np.ascontiguousarray(probe.image.pixels.transpose(0, 3, 1, 2))),)
        if network.preprocess is not None:
            outputs["pixels"] = network.preprocess(probe.image.raw)
    if probe.text is not None:
        given = (probe.text.token_ids, probe.text.mask)
        inputs["text"] = tuple(torch.from_numpy(x.astype(np.int64)) for x in given)
        if network.tokenize is not None and probe.text.raw:
            ids, mask = network.tokenize(probe.text.raw, given[0].shape[1])
            outputs["token ids"] = np.where(mask, ids, -1)
    with torch.inference_mode():
        for name, given in inputs.items():
            tower = getattr(network, name)
            hooks = [
                layer.register_forward_hook(_recorder(outputs, f"{name}/encoder/block_{i}"))
                for i, layer in enumerate(tower.blocks)
            ]
            outputs[f"{name} embeddings"] = tower.embed(*given).numpy()
            for hook in hooks:
                hook.remove()
        if network.logits is not None:
            outputs["logits"] = network.logits(*inputs["image"], *inputs["text"]).numpy()
    return outputs


def _recorder(outputs: dict[str, np.ndarray], name: str) -> Callable[..., None]:
    """A hook that keeps a layer's output; some layers return a tuple that begins with it."""

    def record(module: Any, args: Any, output: Any) -> None:
        outputs[name] = (output[0] if isinstance(output, tuple) else output).numpy()

    return record
