"""How a Pallas kernel starts on a platform."""

from typing import Any

import jax
from jax.experimental.pallas import tpu as pltpu
from jax.experimental.pallas import triton as pltriton

PLATFORMS = ("cpu", "gpu", "tpu")


def kernel_platform() -> str:
    """The platform that JAX computes on by default: one of PLATFORMS."""
    return jax.default_backend()


def launch_options(platform: str) -> dict[str, Any]:
    """Arguments of `pallas_call`: Triton on GPUs, Mosaic on TPUs, else interpreted.

    Args:
      platform: one of PLATFORMS.
    Raises: ValueError: another platform.
    """
    if platform == "gpu":
        # More stages, the default, would need more memory on chip than GPUs have; fewer
        # warps more registers.
        params = pltriton.CompilerParams(num_warps=8, num_stages=1)
        return dict(compiler_params=params)
    if platform == "tpu":
        return dict(compiler_params=pltpu.CompilerParams())
    if platform == "cpu":
        return dict(interpret=True)
    raise ValueError(
        f"Pallas kernels run on {', '.join(PLATFORMS)}; got {platform!r}; use the XLA "
        "path there."
    )
