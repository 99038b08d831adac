"""open_clip's ViT-B/32 and its training step, as its own trainer takes it: forward, `ClipLoss`, backward, AdamW."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import open_clip  # pyrefly: ignore[missing-import]
import torch

SOURCE = f"open_clip {open_clip.__version__}, torch {torch.__version__}"


def tokenizer() -> Callable[[list[str]], np.ndarray]:
    """Texts -> ids `[B, 77]`, padded with 0."""
    encode = open_clip.get_tokenizer("ViT-B-32")
    return lambda texts: encode(texts).numpy()


def model(preset: str) -> torch.nn.Module:
    """Random weights of a preset of mmjax, `ViT-B/32` for `ViT-B-32`."""
    return open_clip.create_model(preset.replace("/", "-"))


def train_steps(
    preset: str, batch_size: int, texts: Mapping[str, Sequence[np.ndarray]], learning_rate: float
) -> Callable[[str], None]:
    """The job: an update on each batch of one kind of text."""
    from benchmarks.train_step import pixels

    pictures = torch.from_numpy(pixels(batch_size)).permute(0, 3, 1, 2)
    network = model(preset).train()
    loss_fn = open_clip.ClipLoss()
    gains = [p for p in network.parameters() if p.ndim < 2]
    weights = [p for p in network.parameters() if p.ndim >= 2]
    groups: list[Any] = [{"params": gains, "weight_decay": 0.0}, {"params": weights, "weight_decay": 0.2}]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), eps=1e-6)

    def run(what: str) -> None:
        for ids in texts[what]:
            optimizer.zero_grad()
            value = loss_fn(*network(pictures, torch.from_numpy(ids)))
            value.backward()
            optimizer.step()
            with torch.no_grad():
                network.logit_scale.clamp_(0, np.log(100))
            value.item()

    return run


def embeds(preset: str, inputs: Mapping[str, np.ndarray]) -> Callable[[str], None]:
    """The job: embeddings of one kind of input, "image" or another name for ids, without gradient."""
    network = model(preset).eval()
    tensors = {what: torch.from_numpy(array) for what, array in inputs.items()}
    tensors["image"] = tensors["image"].permute(0, 3, 1, 2)

    def run(what: str) -> None:
        with torch.inference_mode():
            (network.encode_image if what == "image" else network.encode_text)(tensors[what])

    return run
