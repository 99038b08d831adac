"""Run by `test_collectives.py`: who sees whom, and what comes home, on 1 to 8 devices."""

import json

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from mmjax.parallel.collectives import EXCHANGES, first_row, visit_all


def on(devices, exchange, axes=("data",), shape=(-1,)):
    """16 rows are powers of two. A host sums what it sees, and gives each row (rank + 1) times itself, and its rank."""
    mesh = Mesh(np.array(jax.devices()[:devices]).reshape(shape), axes)

    def each(x):
        rank = jax.lax.axis_index(axes)

        def visit(host, visitor):
            gift = {"sum": visitor * (rank + 1.0), "most": jnp.full_like(visitor, rank)}
            return host + jnp.sum(visitor), gift

        def merge(a, b):
            return {"sum": a["sum"] + b["sum"], "most": jnp.maximum(a["most"], b["most"])}

        empty = {"sum": jnp.zeros_like(x), "most": jnp.full_like(x, -jnp.inf)}
        host, home = visit_all(visit, jnp.zeros_like(x[0]), x, empty, merge=merge, axis_name=axes, exchange=exchange)
        places = first_row(len(x), axes) + jnp.arange(len(x))
        return jnp.broadcast_to(host, len(x)), home["sum"], home["most"], places

    rows = PartitionSpec(axes)
    found = jax.jit(jax.shard_map(each, mesh=mesh, in_specs=rows, out_specs=rows))(2.0 ** jnp.arange(16))
    return [np.asarray(x).tolist() for x in found]


if __name__ == "__main__":
    found = {f"{exchange}/{n}": on(n, exchange) for exchange in EXCHANGES for n in (1, 2, 8)}
    found |= {f"{exchange}/2x4": on(8, exchange, ("data", "fsdp"), (2, 4)) for exchange in EXCHANGES}
    print(json.dumps(found))
