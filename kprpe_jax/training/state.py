"""The training state: everything that a checkpoint must hold to go on."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax


@flax.struct.dataclass
class TrainState:
    """One value that a step takes and hands back.

    Attributes:
      step: int32 scalar, updates done so far.
      params: the trained arrays.
      collections: Flax's other collections, such as batch_stats.
      opt_state: Optax's state.
      rng: typed key; step t draws from fold_in(rng, t), so it never changes.
      nonfinite_step: int32 scalar, number of the first update (from 1) whose loss or
        gradient was not finite, -1 while there is none.
    """

    step: jax.Array
    params: Any
    collections: dict[str, Any]
    opt_state: Any
    rng: jax.Array
    nonfinite_step: jax.Array


def create_state(
    init, transformation: optax.GradientTransformation, rng: jax.Array
) -> TrainState:
    """Build the state of step 0; trace it under `jit` or `eval_shape`.

    Args:
      init: the task's init, key -> {"params": tree, other collections}.
      transformation: the optimiser.
      rng: typed key, split between the parameters and the run.
    """
    init_rng, run_rng = jax.random.split(rng)
    variables = dict(init(init_rng))
    params = variables.pop("params")
    return TrainState(
        step=jnp.int32(0),
        params=params,
        collections=variables,
        opt_state=transformation.init(params),
        rng=run_rng,
        nonfinite_step=jnp.int32(-1),
    )
