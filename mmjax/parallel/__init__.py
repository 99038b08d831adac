"""Meshes, shardings and the placing of arrays on devices."""

from mmjax.parallel.mesh import batch_sharding, make_mesh, put_batch, replicated

__all__ = ["batch_sharding", "make_mesh", "put_batch", "replicated"]
