"""Sharding constraints."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def constrain(x: Array, sharding: NamedSharding | None) -> Array:
    """Constrain `x` to `sharding`; no-op if None."""
    if sharding is None:
        return x
    return jax.lax.with_sharding_constraint(x, sharding)


def auto_axes(mesh: Mesh) -> Mesh:
    """The same devices and axes, with the axis type `Auto` of this library's programs.

    `jax.make_mesh` makes `Explicit` axes unless it is told otherwise: then shardings
    are part of an array's type and must be spelled out operation by operation.
    """
    types = (AxisType.Auto,) * len(mesh.axis_names)
    return Mesh(mesh.devices, mesh.axis_names, axis_types=types)


def num_shares(sharding: NamedSharding | None) -> int:
    """Parts into which the batch, the first axis, is cut; None does not cut."""
    if sharding is None:
        return 1
    size = sharding.mesh.size
    return size // sharding.shard_shape((size,))[0]


def copy_per_share(x: Array, sharding: NamedSharding | None, *, axis: int) -> Array:
    """Equal copies along a new axis, one where each share of the batch lies.

    What is made of the copies is made everywhere, and gradients are summed over devices
    here, as late as can be: of an array that all images share XLA sums what is largest
    on the way.

    Args:
      x: of any shape.
      sharding: of the batch; None = one copy.
      axis: of the result, >= 0.
    """
    copies = jnp.expand_dims(x, axis)
    if sharding is None:
        return copies
    whole = NamedSharding(sharding.mesh, PartitionSpec())
    by_share = PartitionSpec(*(None,) * axis, *sharding.spec[:1])
    copies = jnp.repeat(constrain(copies, whole), num_shares(sharding), axis)
    return constrain(copies, NamedSharding(sharding.mesh, by_share))
