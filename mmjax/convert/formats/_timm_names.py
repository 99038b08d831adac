"""What the names of timm's architectures say: number of heads, activation, epsilon and pooling are in its code only.

Reference: Steiner et al., "How to train your ViT?", TMLR 2022; Zhai et al., "Sigmoid Loss for Language Image
Pre-Training", ICCV 2023; huggingface/pytorch-image-models 1.0.31, `timm/models/vision_transformer.py`.
"""

import re
from typing import Any

from mmjax.convert.formats._hf_siglip_config import SIGLIP_IMAGE
from mmjax.convert.formats._vit_shapes import usual_heads
from mmjax.models import VisionTransformer

# Others of timm's ViTs have what no tensor shows: rotary positions, parallel blocks, other norms.
_PLAIN = re.compile(
    r"vit_[a-z0-9]+_patch\d+(_reg\d)?(_plus)?(_clip|_clip_quickgelu|_siglip|_dinov2|_tipsv2)?(_gap|_map)?(_\d+)?(_miil)?"
    r"|deit3?_[a-z]+_patch\d+_\d+|flexivit_[a-z]+"
)
# The SigLIP towers with the tanh form of GELU; the others have the exact one.
_TANH = re.compile(
    r"vit_(base_patch32|so400m_patch16|giantopt_patch16)_siglip(_gap)?_\d+|vit_large_patch16_siglip(_gap)?_512"
)
# SigLIP's: width, layers, hidden width of the MLP; and for which pictures.
_SIZES = {
    "base": (768, 12, 3072),
    "large": (1024, 24, 4096),
    "so400m": (1152, 27, 4304),
    "giantopt": (1536, 40, 6144),
}
_PICTURES = {
    ("base", 32): (256,),
    ("base", 16): (224, 256, 384, 512),
    ("large", 16): (256, 384, 512),
    ("so400m", 14): (224, 378),
    ("so400m", 16): (256, 384, 512),
    ("giantopt", 16): (256, 384),
}


def is_plain(architecture: str) -> bool:
    """Whether the name is that of a ViT whose other settings show in its tensors.

    >>> [is_plain(f"vit_base_patch16_{kind}") for kind in ("224", "clip_quickgelu_224", "rope_224")]
    [True, True, False]
    """
    return _PLAIN.fullmatch(architecture) is not None


def published_heads(architecture: str, width: int) -> int:
    """The number of heads of an architecture of that width; 0 = it is not known."""
    if architecture == "vit_base_patch16_gap_224":
        return 16
    return 24 if width == 1536 and "_siglip" not in architecture else usual_heads(width)


def published_fields(architecture: str) -> dict[str, Any]:
    """What the blocks of an architecture have in the fields of our tower.

    >>> published_fields("vit_so400m_patch16_siglip_256")
    {'act': 'gelu_tanh', 'ln_eps': 1e-06}
    """
    quick, tanh = "_clip_quickgelu" in architecture, _TANH.fullmatch(architecture)
    act = "quick_gelu" if quick else "gelu_tanh" if tanh else "gelu"
    return {"act": act, "ln_eps": 1e-5 if "_clip" in architecture else 1e-6}


def siglip_architecture(tower: VisionTransformer, image_size: int) -> str | None:
    """The name of the SigLIP tower with these sizes, where there is one.

    >>> siglip_architecture(VisionTransformer(16, 768, 12, 12, None), 224)
    'vit_base_patch16_siglip_224'
    """
    sizes = (tower.width, tower.num_layers, tower.patch_size)
    for (size, patch_size), pictures in _PICTURES.items():
        if (*_SIZES[size][:2], patch_size) == sizes and image_size in pictures:
            return f"vit_{size}_patch{patch_size}_siglip_{image_size}"
    return None


def siglip_fields(architecture: str) -> dict[str, Any]:
    """What a SigLIP tower of that name has in the fields of ours.

    >>> fields = siglip_fields("vit_so400m_patch16_siglip_256")
    >>> fields["num_heads"], fields["act"], round(fields["mlp_ratio"], 2)
    (16, 'gelu_tanh', 3.74)
    """
    width, _, hidden = _SIZES[architecture.split("_")[1]]
    return {
        "num_heads": published_heads(architecture, width),
        "mlp_ratio": hidden / width,
        **SIGLIP_IMAGE,
        **published_fields(architecture),
    }
