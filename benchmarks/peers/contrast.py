"""open_clip's contrastive losses on one device, or their formulas where open_clip is not installed."""

from importlib import metadata

import torch
import torch.nn.functional as F

try:
    from open_clip.loss import ClipLoss, SigLipLoss  # pyrefly: ignore[missing-import]

    SOURCE = f"open_clip {metadata.version('open_clip_torch')}"
except ImportError:
    SOURCE = "torch, open_clip's formula"

    class ClipLoss(torch.nn.Module):
        """`ClipLoss.forward` at 89fb801, world size 1: both directions are products of their own."""

        def forward(self, image_features, text_features, logit_scale):
            labels = torch.arange(len(image_features))
            per_image = logit_scale * image_features @ text_features.T
            per_text = logit_scale * text_features @ image_features.T
            return (F.cross_entropy(per_image, labels) + F.cross_entropy(per_text, labels)) / 2

    class SigLipLoss(torch.nn.Module):
        """`SigLipLoss.forward` at 89fb801, world size 1."""

        def forward(self, image_features, text_features, logit_scale, logit_bias):
            logits = logit_scale * image_features @ text_features.T + logit_bias
            labels = 2 * torch.eye(len(logits)) - torch.ones_like(logits)
            return -F.logsigmoid(labels * logits).sum() / len(logits)


def step(loss: str, images, texts, *, scale: float, bias: float):
    """A function that computes loss and gradients of un-normalised embeddings, scale and bias, and returns the loss."""
    leaves = [torch.as_tensor(x).requires_grad_() for x in (images, texts, scale, bias)]

    def run() -> float:
        images, texts, scale, bias = leaves
        unit = F.normalize(images, dim=-1), F.normalize(texts, dim=-1)
        value = ClipLoss()(*unit, scale) if loss == "clip" else SigLipLoss()(*unit, scale, bias)
        for leaf in leaves:
            leaf.grad = None
        value.backward()
        return value.item()

    return run
