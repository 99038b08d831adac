"""Devices that are not here: their compiler needs none of them to say what a program will hold and send."""

import importlib.util
import os
from collections.abc import Mapping, Sequence
from typing import Any

from jax.experimental import topologies

from mmjax.config import ConfigError

# Measuring kernels needs the device.
COMPILER_OPTIONS: Mapping[str, Mapping[str, Any]] = {"tpu": {}, "cuda": {"xla_gpu_autotune_level": 0}}

_COMPILERS = {"tpu": ("libtpu",), "cuda": ("jax_plugins.xla_cuda13", "jax_plugins.xla_cuda12")}
_V5E = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
# What XLA asks of an H100 SXM: limits of a kernel, memory, clock.
_H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  shared_memory_per_core: 233472 shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  l2_cache_size: 52428800 device_memory_size: 84978434048 memory_bandwidth: 3352320000000
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def absent_devices(platform: str, count: int) -> Sequence[Any] | None:
    """Devices that this machine lacks, to compile for and not to run on: TPU v5e, or H100 in hosts of eight.

    Arrays of such a program are `jax.ShapeDtypeStruct` with shardings over `mesh_of` these devices; compile it with
    `COMPILER_OPTIONS`.

    Args:
      platform: any; "tpu" and "cuda" can be compiled for.
      count: number of devices, such as 8.

    Returns:
      The devices; None where the platform's compiler is not installed, which is part of `jax[tpu]`, `jax[cuda13]` or
      `jax[cuda12]`.

    Raises:
      ConfigError: there is no slice or no host of so many devices.
    """
    if not any(_installed(module) for module in _COMPILERS.get(platform, ())):
        return None
    if platform == "tpu":
        if count not in _V5E:
            raise ConfigError(f"absent_devices: no TPU v5e slice has {count} devices; choose one of {list(_V5E)}")
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # whose answer could only be that this is no TPU
        return topologies.get_topology_desc("v5e:" + _V5E[count], "tpu").devices
    if count > 8 and count % 8:
        raise ConfigError(f"absent_devices: {count} H100 are no hosts of 8; choose a multiple of 8, or fewer than 8")
    hosts = f"1x{max(1, count // 8)}x{min(count, 8)}"
    return topologies.get_topology_desc("h100", "cuda", topology=hosts, target_config=_H100).devices


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
