"""A training state cut down to the class centers that a step samples, and back.

Optimizer, clipping and the watch over what is finite see the sampled rows alone, as if
these were all: a step costs what its sample costs, whatever the number of classes. Rows
that are left out keep their center and their moments, bit for bit: neither moments nor
weights decay there, as in the official PartialFC, whose optimizer holds the sampled
rows only.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array
from jax.sharding import Mesh

from kprpe_jax.losses.class_sampling import SAMPLED, ClassSample, put_rows, take_rows
from kprpe_jax.training.sharding import path_of
from kprpe_jax.training.state import TrainState

CENTERS = "class_centers"


def take_sampled(state: TrainState, sample: ClassSample, mesh: Mesh) -> TrainState:
    """The state with the sampled rows in place of all centers and their moments.

    Args:
      state: its parameters hold CENTERS.
      sample: of this step; the loss finds it in the collection SAMPLED.
      mesh: holds the centers.
    """

    def take(leaf: Array) -> Array:
        return take_rows(leaf, sample.rows, mesh)

    return state.replace(
        params=_on_centers(take, state.params),
        opt_state=_on_centers(take, state.opt_state),
        collections={**state.collections, SAMPLED: sample},
    )


def put_sampled(
    whole: TrainState, part: TrainState, sample: ClassSample, mesh: Mesh
) -> TrainState:
    """The whole state after a step on a part of it.

    Args:
      whole: before the step.
      part: after it.
      sample: what `take_sampled` took.
      mesh: as there.
    """

    def put(new: Array, old: Array) -> Array:
        return put_rows(old, sample, new, mesh)

    collections = {k: c for k, c in part.collections.items() if k != SAMPLED}
    return part.replace(
        params=_on_centers(put, part.params, whole.params),
        opt_state=_on_centers(put, part.opt_state, whole.opt_state),
        collections=collections,
    )


def _on_centers(change: Callable[..., Array], tree: Any, *rest: Any) -> Any:
    """Change the centers and what the optimizer keeps of each of their numbers."""

    def visit(path: tuple, leaf: Array, *others: Array) -> Array:
        is_center = path_of(path).split("/")[-1] == CENTERS and leaf.ndim == 2
        return change(leaf, *others) if is_center else leaf

    return jax.tree_util.tree_map_with_path(visit, tree, *rest)
