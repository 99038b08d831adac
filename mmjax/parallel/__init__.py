"""Meshes, shardings and the placing of arrays on devices."""

from mmjax.parallel.absent import COMPILER_OPTIONS, absent_devices
from mmjax.parallel.activations import by_examples
from mmjax.parallel.digest import params_hash
from mmjax.parallel.distributed import (
    Agreement,
    gather,
    is_first_process,
    on_first_process,
    start_distributed,
    together,
)
from mmjax.parallel.mesh import (
    AXES,
    BATCH_AXES,
    batch_devices,
    batch_shapes,
    batch_sharding,
    describe,
    local_mesh,
    make_mesh,
    mesh_of,
    on_mesh,
    put_batch,
    put_shared_batch,
    replicated,
    simulate_devices,
)
from mmjax.parallel.prefetch import DeviceBatches, prefetch_to_device
from mmjax.parallel.sharded_loss import sharded
from mmjax.parallel.sharding import TENSOR_RULES, ShardingPlan, plan_sharding
from mmjax.parallel.traffic import Collective, collective_traffic

__all__ = [
    "AXES",
    "BATCH_AXES",
    "COMPILER_OPTIONS",
    "TENSOR_RULES",
    "Agreement",
    "Collective",
    "DeviceBatches",
    "ShardingPlan",
    "absent_devices",
    "batch_devices",
    "batch_shapes",
    "batch_sharding",
    "by_examples",
    "collective_traffic",
    "describe",
    "gather",
    "is_first_process",
    "local_mesh",
    "make_mesh",
    "mesh_of",
    "on_first_process",
    "on_mesh",
    "params_hash",
    "plan_sharding",
    "prefetch_to_device",
    "put_batch",
    "put_shared_batch",
    "replicated",
    "sharded",
    "simulate_devices",
    "start_distributed",
    "together",
]
