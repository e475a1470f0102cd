"""Where arrays lie on the devices."""

import jax
from jax import Array
from jax.sharding import NamedSharding


def place(x: Array, sharding: NamedSharding | None) -> Array:
    """Keep an array so; None leaves it to XLA."""
    if sharding is None:
        return x
    return jax.lax.with_sharding_constraint(x, sharding)
