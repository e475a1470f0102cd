"""What the devices could do at best, and what they hold."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from kprpe_jax.core.chips import find_chip
from kprpe_jax.core.flops import model_flops
from kprpe_jax.layers.platforms import NO_KERNELS, kernels_for


def least_step_seconds(
    train_step: Callable, arguments: tuple[Any, ...], mesh: Mesh
) -> tuple[float, str]:
    """The time of a step if products ran at the peak of the chips and nothing else ran.

    Args:
      train_step: of `make_train_step`.
      arguments: (abstract) ones.
      mesh: its devices.
    Returns: seconds, and a line on the figures; 0 and "" for chips of unknown peak.
    """
    chip = find_chip(mesh.devices.flat[0].device_kind)
    if chip is None:
        return 0.0, ""
    flops = step_flops(train_step, arguments)
    line = (
        f"utilization: {flops / 1e12:.3g} TFLOP a step (network, loss and gradients), "
        f"against {chip.bfloat16 / 1e12:.0f} TFLOP/s of bfloat16 products per "
        f"{chip.name} ({chip.source})"
    )
    return flops / (chip.bfloat16 * mesh.size), line


def step_flops(train_step: Callable, arguments: tuple[Any, ...]) -> float:
    """FLOPs of the network, the loss and their gradients, all devices together.

    They don't depend on how a step is computed: kernels count as the products that they
    stand for, whatever they compute again, and see `model_flops`.
    """
    with kernels_for(NO_KERNELS):
        # A new function, or JAX would remember what the real step is.
        traced = jax.make_jaxpr(lambda *x: train_step(*x))(*arguments)
    return model_flops(traced)


def memory_in_use() -> dict[str, float]:
    """Bytes in use and their peak, of the fullest device of this process.

    Returns: metrics; {} where the platform does not tell, as on CPUs.
    """
    found = [stats for d in jax.local_devices() if (stats := d.memory_stats())]
    names = {"in_use": "bytes_in_use", "peak": "peak_bytes_in_use"}
    return {
        f"memory/{name}_bytes": float(max(stats[key] for stats in found))
        for name, key in names.items()
        if found and all(key in stats for stats in found)
    }
