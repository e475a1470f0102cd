"""How a Pallas kernel starts on a platform, and the sizes that it may have."""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.experimental.pallas import tpu as pltpu

from kprpe_jax.layers.platforms import PLATFORMS


def launch_options(
    platform: str, *, parallel_axes: int, ordered_axes: int = 0, num_warps: int = 8
) -> dict[str, Any]:
    """Arguments of `pallas_call`: Triton on GPUs, Mosaic on TPUs, else interpreted.

    Args:
      platform: one of PLATFORMS.
      parallel_axes: first ones of the grid; a TPU of two cores shares programs out
        along them, so none may read what another wrote.
      ordered_axes: the others; programs along them may share a block of results.
      num_warps: of a program on GPUs; fewer leave more registers to each.
    Raises: ValueError: another platform.
    """
    if platform == "gpu":
        from jax.experimental.pallas import triton as pltriton  # GPUs alone need it

        # More stages, the default, would need more memory on chip than GPUs have.
        params = pltriton.CompilerParams(num_warps=num_warps, num_stages=1)
        return dict(compiler_params=params)
    if platform == "tpu":
        semantics = (pltpu.PARALLEL,) * parallel_axes
        semantics += (pltpu.ARBITRARY,) * ordered_axes
        return dict(compiler_params=pltpu.CompilerParams(dimension_semantics=semantics))
    if platform == "cpu":
        return dict(interpret=True)
    raise ValueError(
        f"Pallas kernels run on {', '.join(PLATFORMS)}; got {platform!r}; use the XLA "
        "path there."
    )


def pad_ends(x: Array, *sizes: tuple[int, int]) -> Array:
    """Zeros at the end of each of these axes, given as (axis, size), up to its size."""
    widths = [(0, 0)] * x.ndim
    for axis, size in sizes:
        widths[axis] = (0, size - x.shape[axis])
    return jnp.pad(x, widths)


def power_of_two(size: int, least: int) -> int:
    """The next power of two, as Triton's arrays have no other sizes."""
    return max(least, 1 << (size - 1).bit_length())
