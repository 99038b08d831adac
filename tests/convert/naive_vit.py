"""Transformers with fused query, key and value in NumPy, in loops over heads, for tensors as PyTorch names them."""

import math
from collections.abc import Callable, Mapping

import numpy as np

Tensors = Mapping[str, np.ndarray]


def linear(x: np.ndarray, tensors: Tensors, name: str) -> np.ndarray:
    """`x W^T + b`."""
    return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]


def layer_norm(x: np.ndarray, tensors: Tensors, name: str, *, eps: float) -> np.ndarray:
    """Over the last axis."""
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
    return scaled * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]


def gelu(x: np.ndarray) -> np.ndarray:
    """The exact one."""
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def attend(query: np.ndarray, key: np.ndarray, value: np.ndarray, *, heads: int, causal: bool = False) -> np.ndarray:
    """Of tokens `[Q, D]` and `[K, D]`, head by head."""
    width = query.shape[-1] // heads
    outputs = []
    for head in range(heads):
        q, k, v = (x[:, head * width : (head + 1) * width] for x in (query, key, value))
        scores = q @ k.T / math.sqrt(width)
        if causal:
            scores = np.where(np.tril(np.ones_like(scores)) > 0, scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        outputs.append(weights / weights.sum(-1, keepdims=True) @ v)
    return np.concatenate(outputs, axis=-1)


def patches(picture: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """A picture `[H, W, 3]` under a convolution `[D, 3, p, p]` of stride p, row by row: `[N, D]`."""
    p = kernel.shape[-1]
    rows, columns = picture.shape[0] // p, picture.shape[1] // p
    cells = [picture[i * p : (i + 1) * p, j * p : (j + 1) * p] for i in range(rows) for j in range(columns)]
    return np.stack([np.einsum("hwc,dchw->d", cell, kernel) for cell in cells])


def timm_vit(
    tensors: Tensors, picture: np.ndarray, *, heads: int, eps: float = 1e-6, act: Callable = gelu
) -> np.ndarray:
    """timm's ViT on one picture: attention pooling where there is one, else the class token, else the mean."""
    x = patches(picture, tensors["patch_embed.proj.weight"]) + tensors.get("patch_embed.proj.bias", 0)
    prefix = [tensors[name][0] for name in ("cls_token", "reg_token") if name in tensors]
    num_prefix, positions = sum(map(len, prefix)), tensors["pos_embed"][0]
    if len(positions) == len(x):
        x = np.concatenate([*prefix, x + positions])
    else:
        x = np.concatenate([*prefix, x]) + positions
    if "norm_pre.weight" in tensors:
        x = layer_norm(x, tensors, "norm_pre", eps=eps)
    block = 0
    while f"blocks.{block}.norm1.weight" in tensors:
        name = f"blocks.{block}"
        scales = [tensors.get(f"{name}.ls{i}.gamma", 1) for i in (1, 2)]
        fused = linear(layer_norm(x, tensors, f"{name}.norm1", eps=eps), tensors, f"{name}.attn.qkv")
        x = x + scales[0] * linear(attend(*np.split(fused, 3, axis=-1), heads=heads), tensors, f"{name}.attn.proj")
        hidden = act(linear(layer_norm(x, tensors, f"{name}.norm2", eps=eps), tensors, f"{name}.mlp.fc1"))
        x = x + scales[1] * linear(hidden, tensors, f"{name}.mlp.fc2")
        block += 1
    x = layer_norm(x, tensors, "norm", eps=eps)
    if "attn_pool.latent" in tensors:
        query = linear(tensors["attn_pool.latent"][0], tensors, "attn_pool.q")
        key, value = np.split(linear(x[num_prefix:], tensors, "attn_pool.kv"), 2, axis=-1)
        x = linear(attend(query, key, value, heads=heads), tensors, "attn_pool.proj")
        hidden = act(linear(layer_norm(x, tensors, "attn_pool.norm", eps=eps), tensors, "attn_pool.mlp.fc1"))
        pooled = (x + linear(hidden, tensors, "attn_pool.mlp.fc2"))[0]
    else:
        pooled = x[0] if "cls_token" in tensors else x[num_prefix:].mean(0)
    return linear(pooled, tensors, "head") if "head.weight" in tensors else pooled


def _openai_blocks(
    x: np.ndarray, tensors: Tensors, prefix: str, *, heads: int, act: Callable, causal: bool = False
) -> np.ndarray:
    block = 0
    while f"{prefix}.{block}.ln_1.weight" in tensors:
        name = f"{prefix}.{block}"
        inputs = layer_norm(x, tensors, f"{name}.ln_1", eps=1e-5)
        fused = inputs @ tensors[f"{name}.attn.in_proj_weight"].T + tensors[f"{name}.attn.in_proj_bias"]
        attended = attend(*np.split(fused, 3, axis=-1), heads=heads, causal=causal)
        x = x + linear(attended, tensors, f"{name}.attn.out_proj")
        hidden = act(linear(layer_norm(x, tensors, f"{name}.ln_2", eps=1e-5), tensors, f"{name}.mlp.c_fc"))
        x = x + linear(hidden, tensors, f"{name}.mlp.c_proj")
        block += 1
    return x


def openai_image(tensors: Tensors, picture: np.ndarray, *, heads: int, act: Callable = gelu) -> np.ndarray:
    """OpenAI's image tower on one picture."""
    x = np.concatenate([tensors["visual.class_embedding"][None], patches(picture, tensors["visual.conv1.weight"])])
    x = layer_norm(x + tensors["visual.positional_embedding"], tensors, "visual.ln_pre", eps=1e-5)
    x = _openai_blocks(x, tensors, "visual.transformer.resblocks", heads=heads, act=act)
    return layer_norm(x, tensors, "visual.ln_post", eps=1e-5)[0] @ tensors["visual.proj"]


def openai_text(tensors: Tensors, ids: np.ndarray, *, heads: int, act: Callable = gelu) -> np.ndarray:
    """OpenAI's text tower on one text, read at its largest id."""
    x = tensors["token_embedding.weight"][ids] + tensors["positional_embedding"]
    x = _openai_blocks(x, tensors, "transformer.resblocks", heads=heads, act=act, causal=True)
    return layer_norm(x, tensors, "ln_final", eps=1e-5)[np.argmax(ids)] @ tensors["text_projection"]
