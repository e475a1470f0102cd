"""The training state: everything that a checkpoint must hold to go on."""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from kprpe_jax.training.sharding import state_shardings


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
      transformation: the optimizer.
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


def abstract_state(
    task: Any,
    mesh: Mesh,
    transformation: optax.GradientTransformation | None = None,
) -> TrainState:
    """Give the shapes, dtypes and shardings of a task's state; nothing is allocated.

    Args:
      task: its init and sharding_rules are used.
      mesh: where the state shall lie.
      transformation: the optimizer; None for a state that is only evaluated.
    Returns: a TrainState of ShapeDtypeStructs.
    Raises: ValueError: a sharding rule that does not fit (see `sharding`).
    """
    transformation = transformation or optax.identity()
    shapes = jax.eval_shape(
        lambda rng: create_state(task.init, transformation, rng), jax.random.key(0)
    )
    shardings = state_shardings(shapes, task.sharding_rules, mesh)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding
        ),
        shapes,
        shardings,
    )


def new_state(
    task: Any,
    transformation: optax.GradientTransformation,
    abstract: TrainState,
    *,
    seed: int,
) -> TrainState:
    """Make the state of step 0 where it shall lie.

    Args:
      task, transformation: as `abstract_state` was given.
      abstract: its result.
      seed: of parameters and run.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    (device, *_) = shardings.step.device_set
    # What runs once need not be fast: on CPUs half the time to compile, the same bits.
    quick = {"xla_backend_optimization_level": 1} if device.platform == "cpu" else None
    create = functools.partial(create_state, task.init, transformation)
    make = jax.jit(create, out_shardings=shardings, compiler_options=quick)
    return make(jax.random.key(seed))
