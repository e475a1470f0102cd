"""The watch over what is finite: no NaN is evaluated or saved."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils

from kprpe_jax.training.checkpoint import Checkpoints
from kprpe_jax.training.state import TrainState


class NonFiniteError(FloatingPointError):
    """Loss, gradient or parameters became NaN or infinite; the run has stopped."""


def check_finite(
    state: TrainState, ids: dict[int, np.ndarray], checkpoints: Checkpoints
) -> float:
    """Wait for the devices and look at the updates since the last check.

    Args:
      state: after the last of them.
      ids: step -> ids of its rows in this process, of these steps.
      checkpoints: of the run; the error names the last one.
    Returns: the norm of all parameters.
    Raises: NonFiniteError: an update was not finite, or made from what was not.
    """
    step = int(state.nonfinite_step)
    if step < 0:
        finite, norm = jax.device_get(_look_at(state.params))
        if finite:
            return float(norm)
        raise NonFiniteError(
            f"train: the parameters are not finite after step {max(ids)}, while loss "
            "and gradient are; lower the learning rate (last good checkpoint: "
            f"{_last_good(checkpoints)})"
        )
    rows = ids[step]
    if jax.process_count() > 1:
        rows = multihost_utils.process_allgather(rows, tiled=True)
    raise NonFiniteError(
        f"train: the loss or its gradient is not finite at step {step}, whose batch "
        f"has the rows {sorted(int(row) for row in rows)}; look at these rows or lower "
        f"the learning rate (last good checkpoint: {_last_good(checkpoints)})"
    )


@jax.jit
def _look_at(params: Any) -> tuple[jax.Array, jax.Array]:
    """Whether all parameters are finite, and their norm."""
    # Apart from the step, which would have to keep another copy of all updates for it.
    leaves = jax.tree.leaves(params)
    finite = jnp.all(jnp.array([jnp.isfinite(x).all() for x in leaves]))
    # Squares of large finite parameters are not.
    largest = jnp.max(jnp.array([jnp.abs(x).max(initial=0) for x in leaves]))
    scale = jnp.maximum(largest.astype(jnp.float32), jnp.finfo(jnp.float32).tiny)
    scaled = [x.astype(jnp.float32) / scale for x in leaves]
    return finite, scale * optax.tree.norm(scaled)


def _last_good(checkpoints: Checkpoints) -> str:
    checkpoints.wait()
    return f"step {checkpoints.steps[-1]}" if checkpoints.steps else "none yet"
