"""What trains, and how: partition, optimizers by name, schedules, bounds, averages, gradients in parts of a batch."""

from mmjax.optim.accumulate import accumulate_gradients
from mmjax.optim.bounds import clip_params
from mmjax.optim.cached import cached_value_and_grad
from mmjax.optim.ema import ema_update, ema_warmup_decay
from mmjax.optim.factory import optimizer_names
from mmjax.optim.interpolate import interpolate_params
from mmjax.optim.layer_decay import layer_rates
from mmjax.optim.locking import frozen_rules, lock_tower
from mmjax.optim.lora_plus import lora_plus
from mmjax.optim.optimizer import Group, Optimizer, build_optimizer
from mmjax.optim.partition import Leaf, Partition, Rule, partition_params
from mmjax.optim.schedules import (
    Schedule,
    build_schedule,
    cosine_schedule,
    linear_schedule,
    warmup_constant,
    warmup_cosine,
    warmup_linear,
    warmup_rsqrt,
)

__all__ = [
    "Group",
    "Leaf",
    "Optimizer",
    "Partition",
    "Rule",
    "Schedule",
    "accumulate_gradients",
    "build_optimizer",
    "build_schedule",
    "cached_value_and_grad",
    "clip_params",
    "cosine_schedule",
    "ema_update",
    "ema_warmup_decay",
    "frozen_rules",
    "interpolate_params",
    "layer_rates",
    "linear_schedule",
    "lock_tower",
    "lora_plus",
    "optimizer_names",
    "partition_params",
    "warmup_constant",
    "warmup_cosine",
    "warmup_linear",
    "warmup_rsqrt",
]
