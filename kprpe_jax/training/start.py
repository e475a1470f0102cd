"""Start a run from weights: read once, merged into the new state, remembered.

The run's folder keeps what it started from in weights.json. A run that continues from
its own checkpoint does not read the weights again.
"""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from kprpe_jax import registry
from kprpe_jax.core.paths import as_path
from kprpe_jax.tasks.task import Task
from kprpe_jax.training.merge import CLASSES, Merged, merge
from kprpe_jax.training.runs import read_facts, write_json
from kprpe_jax.training.sharding import flatten_with_paths, path_of
from kprpe_jax.training.state import TrainState

_FILE = "weights.json"


class StartWeights(NamedTuple):
    """Weights in the places of a task's state.

    Attributes:
      variables: {"params": tree, other collections: trees}.
      grid: (rows, columns) of tokens of their network; None = it has none.
      same_classes: whether their classes are those of the run's data.
      fingerprint: SHA-256 of the weights, in hexadecimal.
      license: one line about them; "" = unknown.
    """

    variables: Mapping[str, Any]
    grid: tuple[int, int] | None
    same_classes: bool
    fingerprint: str
    license: str


class Start(NamedTuple):
    """What a run starts from: `Merged`, and what its folder remembers."""

    merged: Merged
    origin: dict[str, Any]

    @property
    def lines(self) -> list[str]:
        """What was taken, for people."""
        return self.origin["merged"]


def read_start(
    config: ConfigDict, task: Task, abstract: TrainState, workdir: str | os.PathLike
) -> Start | None:
    """Read `config.model.weights` for a run; None where it names none.

    Args:
      config: of the run.
      task: that is trained.
      abstract: its state, from `state.abstract_state`.
      workdir: of the run.
    Raises: ValueError: weights of another network (`merge`), or that the task has no
      place for; other weights than those that the run began with.
    """
    spec = config.get("model", {}).get("weights", "")
    if not spec:
        return None
    weights = registry.resolve(registry.LOAD_START)(spec, config, task)
    check_same(workdir, spec, weights.fingerprint)
    params, collections = weights.variables["params"], dict(weights.variables)
    del collections["params"]
    stored = flatten_with_paths({"params": params, "collections": collections})
    dropped = [p for p in stored if CLASSES.search(p) and not weights.same_classes]
    kept = {path: np.asarray(x) for path, x in stored.items() if path not in dropped}
    merged = merge(
        kept,
        _flat(abstract),
        spec=spec,
        grids=(weights.grid, task.grid),
        num_classes=config.data.get("num_classes", 0),
    )
    merged = merged._replace(aside=sorted([*merged.aside, *dropped]))
    origin = {
        "spec": spec,
        "fingerprint": weights.fingerprint,
        "license": weights.license,
        "merged": merged.describe(),
    }
    return Start(merged, origin)


def put_start(state: TrainState, merged: Merged) -> TrainState:
    """Put merged arrays into a new state, where and how it lies on the mesh."""

    def put(part: str, tree: Any) -> Any:
        def visit(key_path: tuple, leaf: jax.Array) -> jax.Array:
            path = f"{part}/{path_of(key_path)}"
            if path not in merged.arrays:
                return leaf
            host = merged.arrays[path]
            return jax.make_array_from_callback(
                leaf.shape, leaf.sharding, lambda index: host[index]
            )

        return jax.tree_util.tree_map_with_path(visit, tree)

    return state.replace(
        params=put("params", state.params),
        collections=put("collections", state.collections),
    )


def save_start(workdir: str | os.PathLike, start: Start) -> None:
    """Write what the run starts from beside its config."""
    write_json(as_path(workdir) / _FILE, start.origin)


def read_start_origin(workdir: str | os.PathLike) -> dict[str, Any]:
    """What a run started from: spec, fingerprint, license; {} where from nothing.

    Raises: ValueError: a damaged file.
    """
    path = as_path(workdir) / _FILE
    return read_facts(path, "weights", "take another --workdir")


def check_same(workdir: str | os.PathLike, spec: str, fingerprint: str) -> None:
    """Raise ValueError where the run in a folder began with other weights."""
    known = read_start_origin(workdir).get("fingerprint", fingerprint)
    if known != fingerprint:
        raise ValueError(
            f"config.model.weights {spec}: must be the weights that the run in "
            f"{workdir} began with, of fingerprint {known[:12]}; got "
            f"{fingerprint[:12]}; restore them, or take another --workdir"
        )


def _flat(abstract: TrainState) -> dict[str, Any]:
    parts = {"params": abstract.params, "collections": abstract.collections}
    return flatten_with_paths(parts)
