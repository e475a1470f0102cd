"""Where arrays lie on the devices."""

import jax
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding


def place(x: Array, sharding: NamedSharding | None) -> Array:
    """Keep an array so; None leaves it to XLA."""
    if sharding is None:
        return x
    return jax.lax.with_sharding_constraint(x, sharding)


def auto_axes(mesh: Mesh) -> Mesh:
    """The same devices and axes, with the axis type `Auto` of this library's programs.

    `jax.make_mesh` makes `Explicit` axes unless it is told otherwise: then shardings
    are part of an array's type and must be spelt out operation by operation.
    """
    types = (AxisType.Auto,) * len(mesh.axis_names)
    return Mesh(mesh.devices, mesh.axis_names, axis_types=types)
