"""The training step: gradients, accumulation, update; compiled once per shape."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kprpe_jax.core import mesh as mesh_lib
from kprpe_jax.training.optimizer import Optimizer
from kprpe_jax.training.sampled_rows import put_sampled, take_sampled
from kprpe_jax.training.state import TrainState

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
_SAMPLE = 2**32 - 1  # no micro-batch has this number


def make_train_step(
    loss: Callable,
    optimizer: Optimizer,
    *,
    mesh: Mesh,
    accumulate_steps: int,
    sample_classes: Callable | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Build the pure function (state, batch) -> (state, metrics).

    An update whose loss or gradient norm is not finite is not made, and no later one
    either; `state.nonfinite_step` keeps its number, so that the host need not look at
    every step. (An update that is itself not finite is found by the loop, before the
    parameters are evaluated or saved.)

    Args:
      loss: the task's loss.
      optimizer: the transformation and its schedule.
      mesh: each micro-batch is spread over all of it.
      accumulate_steps: micro-batches per update. Their gradients and metrics are
        averaged, their collections handed on from one to the next.
      sample_classes: the task's: which class centers the update is about. Sampled for
        the whole batch, before it is cut.
    Returns: the step. Its metrics are float32 scalars: the task's, and loss, grad_norm
      (before clipping) and learning_rate.
    """
    grad_fn = jax.value_and_grad(loss, has_aux=True)

    def micro_step(params, collections, batch, rng):
        (value, (collections, metrics)), grads = grad_fn(
            params, collections, batch, rng, train=True
        )
        metrics = {**metrics, "loss": value}
        return grads, collections, jax.tree.map(jnp.float32, metrics)

    def accumulate(params, collections, batch, rng):
        batch = _split_batch(batch, accumulate_steps, mesh)

        def body(collections, inputs):
            index, micro_batch = inputs
            grads, collections, metrics = micro_step(
                params, collections, micro_batch, jax.random.fold_in(rng, index)
            )
            return collections, (grads, metrics)

        # Carrying sums rather than stacking keeps one gradient in memory.
        shapes = jax.eval_shape(
            body, collections, jax.tree.map(lambda x: x[0], (jnp.arange(1), batch))
        )[1]
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

        def summed(carry, inputs):
            collections, sums = carry
            collections, values = body(collections, inputs)
            return (collections, jax.tree.map(jnp.add, sums, values)), None

        (collections, sums), _ = jax.lax.scan(
            summed, (collections, zeros), (jnp.arange(accumulate_steps), batch)
        )
        grads, metrics = jax.tree.map(lambda x: x / accumulate_steps, sums)
        return grads, collections, metrics

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        rng = jax.random.fold_in(state.rng, state.step)
        if sample_classes is None:
            return update(state, batch, rng)
        sample = sample_classes(batch, jax.random.fold_in(rng, _SAMPLE))
        part = take_sampled(state, sample, mesh)
        part, metrics = update(part, batch, rng)
        return put_sampled(state, part, sample, mesh), metrics

    def update(
        state: TrainState, batch: Batch, rng: jax.Array
    ) -> tuple[TrainState, Metrics]:
        gradients = micro_step if accumulate_steps == 1 else accumulate
        grads, collections, metrics = gradients(
            state.params, state.collections, batch, rng
        )
        grad_norm = optax.tree.norm(grads).astype(jnp.float32)
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(grad_norm)
        healthy = finite & (state.nonfinite_step < 0)
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.transformation.update(
                grads, state.opt_state, state.params
            )
            params = optax.apply_updates(state.params, updates)
        kept = jax.tree.map(
            lambda new, old: jnp.where(healthy, new, old),
            (params, collections, opt_state),
            (state.params, state.collections, state.opt_state),
        )
        number = state.step + 1
        first_bad = jnp.where(finite | (state.nonfinite_step >= 0), -1, number)
        state = state.replace(
            step=number,
            params=kept[0],
            collections=kept[1],
            opt_state=kept[2],
            nonfinite_step=jnp.maximum(state.nonfinite_step, first_bad),
        )
        metrics["grad_norm"] = grad_norm
        metrics["learning_rate"] = optimizer.schedule(number - 1)
        return state, metrics

    return train_step


class CompiledStep:
    """A training step compiled ahead of time, once for each shape of batch.

    Attributes:
      compilations: how often XLA compiled it.
    """

    def __init__(self, train_step: Callable, shardings: Any, mesh: Mesh):
        """Keep the step; `shardings` is the state's tree of NamedSharding."""
        self._jitted = jax.jit(
            train_step,
            in_shardings=(shardings, mesh_lib.batch_sharding(mesh)),
            out_shardings=(shardings, mesh_lib.replicated(mesh)),
            donate_argnums=0,
        )
        self._compiled: dict[tuple, Any] = {}

    @property
    def compilations(self) -> int:
        """How often XLA compiled the step."""
        return len(self._compiled)

    def compile(self, state: Any, batch: Any) -> jax.stages.Compiled:
        """Compile for these (abstract) arguments, or give what was compiled before."""
        key = tuple((name, x.shape, x.dtype) for name, x in sorted(batch.items()))
        if key not in self._compiled:
            self._compiled[key] = self.trace(state, batch).lower().compile()
        return self._compiled[key]

    def trace(self, state: Any, batch: Any) -> jax.stages.Traced:
        """Trace for these (abstract) arguments."""
        return self._jitted.trace(state, batch)

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """Run one step; `state` is donated and must not be used again."""
        return self.compile(state, batch)(state, batch)


def _split_batch(batch: Batch, parts: int, mesh: Mesh) -> Batch:
    """Cut [B, ...] into [parts, B / parts, ...]; part i takes the rows i::parts.

    Strided, because a device's rows are neighbors: so it keeps a share of each part,
    nothing moves between devices, and each part is spread over all of them.
    """
    sharding = NamedSharding(mesh, PartitionSpec(None, mesh_lib.AXES))

    def split(rows):
        parted = rows.reshape(rows.shape[0] // parts, parts, *rows.shape[1:])
        return jax.lax.with_sharding_constraint(jnp.swapaxes(parted, 0, 1), sharding)

    return jax.tree.map(split, batch)
