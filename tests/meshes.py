"""Meshes over the first of the simulated devices."""

import jax
from jax.sharding import Mesh

from kprpe_jax.core.mesh import make_mesh


def mesh_of(data: int, fsdp: int, classes: int) -> Mesh:
    """Give a mesh of as many devices as it needs."""
    devices = jax.devices()[: data * fsdp * classes]
    return make_mesh({"data": data, "fsdp": fsdp, "class": classes}, devices)
