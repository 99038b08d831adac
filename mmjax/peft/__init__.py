"""Adapters, which fine-tune a model by few parameters of their own: `(init, wrap, merge)` triples over `intercept`."""

from mmjax.peft.adapted import AdaptedModel, adapt_method, freeze_base, rebase, split_adapter
from mmjax.peft.adapter import Adapter, NoMergeError
from mmjax.peft.bitfit import bitfit, bitfit_mask
from mmjax.peft.bottleneck import BottleneckAdapter, bottleneck
from mmjax.peft.branch import Branch, make_adapter
from mmjax.peft.build import build_adapter
from mmjax.peft.chain import chain, per_tower
from mmjax.peft.experts import BottleneckExperts, experts, load_balance
from mmjax.peft.frozen import frozen
from mmjax.peft.full import full
from mmjax.peft.hf_format import load_hf_adapter, save_hf_adapter
from mmjax.peft.ia3 import ia3, ia3_linear
from mmjax.peft.lora import lora
from mmjax.peft.low_rank import dora_linear, lora_conv, lora_embedding, lora_linear
from mmjax.peft.manifest import AdapterMismatchError, Manifest, join_adapter, load_adapter, save_adapter
from mmjax.peft.merging import MergeReport, NothingChangedError, combine, merge, switch, unmerge
from mmjax.peft.overlay import overlay
from mmjax.peft.prefix_tuning import PrefixEncoder, collapse_prefix, prefix_attention, prefix_tuning
from mmjax.peft.prompt_tuning import prompt_tuning
from mmjax.peft.prompts import coop_prompt, insert_prompts, replace_prompts
from mmjax.peft.report import AdapterReport, describe_adapter
from mmjax.peft.unfreeze import unfreeze
from mmjax.peft.vpt import vpt

__all__ = [
    "AdaptedModel",
    "Adapter",
    "AdapterMismatchError",
    "AdapterReport",
    "BottleneckAdapter",
    "BottleneckExperts",
    "Branch",
    "Manifest",
    "MergeReport",
    "NoMergeError",
    "NothingChangedError",
    "PrefixEncoder",
    "adapt_method",
    "bitfit",
    "bitfit_mask",
    "bottleneck",
    "build_adapter",
    "chain",
    "collapse_prefix",
    "combine",
    "coop_prompt",
    "describe_adapter",
    "dora_linear",
    "experts",
    "freeze_base",
    "frozen",
    "full",
    "ia3",
    "ia3_linear",
    "insert_prompts",
    "join_adapter",
    "load_adapter",
    "load_balance",
    "load_hf_adapter",
    "lora",
    "lora_conv",
    "lora_embedding",
    "lora_linear",
    "make_adapter",
    "merge",
    "overlay",
    "per_tower",
    "prefix_attention",
    "prefix_tuning",
    "prompt_tuning",
    "rebase",
    "replace_prompts",
    "save_adapter",
    "save_hf_adapter",
    "split_adapter",
    "switch",
    "unfreeze",
    "unmerge",
    "vpt",
]
