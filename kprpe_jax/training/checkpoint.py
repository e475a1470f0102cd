"""Checkpoints: written behind the running steps, restored onto any mesh.

A checkpoint has three parts: `model` (parameters, collections, step), which evaluation
reads alone; `rest` (optimizer, random key, nonfinite_step); `meta` (JSON: config,
versions, place in the data, and the shape and dtype of every array).
"""

import contextlib
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.experimental import multihost_utils
from ml_collections import ConfigDict
from orbax.checkpoint import checkpoint_managers as policies

from kprpe_jax.core.paths import AnyPath, absolute, as_path, bucket_errors, is_bucket
from kprpe_jax.training.runs import network_changes
from kprpe_jax.training.s3_arrays import teach_orbax
from kprpe_jax.training.sharding import flatten_with_paths
from kprpe_jax.training.state import TrainState

FOLDER = "checkpoints"
BEST = "best"  # folder of the best checkpoint, where it is evaluated beside training
METRICS = "metrics/metrics"  # file of a checkpoint: its evaluation, JSON
_MODEL = ("step", "params", "collections")
_REST = ("opt_state", "rng", "nonfinite_step")


class Checkpoints:
    """The checkpoints of one work directory.

    Writing is asynchronous and atomic: an interrupted one leaves only a temporary
    folder, which the next start removes. The last `keep_last` stay, and the best by the
    metric.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        config: ConfigDict | None = None,
        *,
        evaluated: bool = True,
    ):
        """Open the folder; without `config` (section `checkpoint`) only to read.

        `evaluated`: training evaluates, so that one of its checkpoints is the best.
        """
        self.folder = absolute(workdir) / FOLDER
        self._manager = None
        options = _options(config, evaluated)
        if is_bucket(self.folder):
            teach_orbax()
            # Where nothing is renamed, a last file says that all others are there.
            options.atomicity_options = ocp.options.AtomicityOptions(
                mode=ocp.options.AtomicityMode.COMMIT_FILE
            )
        with bucket_errors(workdir):
            if config or _all_see(self.folder):
                self._manager = ocp.CheckpointManager(self.folder, options=options)

    @property
    def steps(self) -> list[int]:
        """The steps at hand, rising."""
        return sorted(self._manager.all_steps()) if self._manager else []

    def best_step(self, metric: str, mode: str) -> int | None:
        """Give the step with the highest ("max") or lowest ("min") metric, or None."""
        found = {s: self.metrics(s).get(metric, math.nan) for s in self.steps}
        found = {step: value for step, value in found.items() if math.isfinite(value)}
        choose = max if mode == "max" else min
        return choose(found, key=found.get) if found else None

    def metrics(self, step: int) -> dict[str, float]:
        """Give the evaluation that was stored with a step; empty if there was none."""
        return dict(self._manager.metrics(step) or {})

    def save(
        self,
        state: TrainState,
        *,
        step: int,
        meta: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Copy the state to the host and write it in the background.

        Args:
          state: the state after `step` updates.
          step: its number, known to the host without a look at the device.
          meta: JSON values, kept beside the fingerprint.
          metrics: this step's evaluation; it counts for "best" where it holds the best
            metric as a finite number.

        A step that is there, whose evaluation was made up for, is replaced.

        Raises: OSError: this or an earlier save cannot be written.
        """
        parts = _parts(state)
        with self._written():
            if step in self.steps:
                self._manager.delete(step)
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    **{name: ocp.args.StandardSave(x) for name, x in parts.items()},
                    meta=ocp.args.JsonSave({**meta, "arrays": fingerprint(state)}),
                ),
                metrics=dict(metrics or {}),
                force=True,  # the loop decides when; Orbax's own interval does not
            )

    def meta(self, step: int) -> dict[str, Any]:
        """Read the JSON part of a step."""
        restored = self._manager.restore(
            step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())
        )
        return restored["meta"]

    def restore(self, step: int, abstract_state: TrainState) -> TrainState:
        """Read a state onto the mesh of `abstract_state`.

        Args:
          step: one of `steps`.
          abstract_state: from `state.abstract_state`; any mesh. Where its opt_state is
            None, parameters, collections and step alone are read, and the other fields
            become None.
        Raises: ValueError: the checkpoint holds other arrays.
        """
        self.check(step, abstract_state)
        parts = _parts(abstract_state)
        if abstract_state.opt_state is None:
            del parts["rest"]
        items = {name: ocp.args.StandardRestore(x) for name, x in parts.items()}
        found = self._manager.restore(step, args=ocp.args.Composite(**items))
        rest = found["rest"] if "rest" in parts else dict.fromkeys(_REST)
        return abstract_state.replace(**found["model"], **rest)

    def check(self, step: int, abstract_state: TrainState) -> None:
        """Compare the arrays of a checkpoint with those of a state.

        Orbax reports other shapes at length and casts other dtypes in silence.

        Raises: ValueError: the first three arrays that differ, and how many do.
        """
        stored, wanted = self.meta(step)["arrays"], fingerprint(abstract_state)
        if abstract_state.opt_state is None:
            stored = {k: v for k, v in stored.items() if not k.startswith("opt_state/")}
        paths = sorted(stored.keys() | wanted.keys(), key=lambda p: ("opt_" in p, p))
        differing = [p for p in paths if stored.get(p) != wanted.get(p)]
        if differing:
            told = "; ".join(
                f"{path} is {stored.get(path, 'absent')} there and "
                f"{wanted.get(path, 'absent')} here"
                for path in differing[:3]
            )
            raise ValueError(
                f"checkpoint: step {step} in {self.folder} is of another model: "
                f"{len(differing)} arrays differ: {told}; use the config that the "
                "checkpoint was made with"
            )

    def wait(self) -> None:
        """Wait until everything saved is on the disk.

        Raises: OSError: it cannot be written.
        """
        if self._manager:
            with self._written():
                self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait, then let go of the folder; raises as `wait`."""
        if self._manager:
            with self._written():
                self._manager.close()

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        """Raise OSError, with the folder, where this or an earlier save has failed."""
        if is_bucket(self.folder):
            with bucket_errors(self.folder):
                yield
            return
        try:
            yield
        except Exception as error:  # whose it is depends on who wrote
            number = _system_error(error)
            if number is None:
                raise
            raise OSError(number, os.strerror(number), str(self.folder)) from error


def _open(
    workdir: str | os.PathLike, checkpoint: int | str, config: ConfigDict
) -> Checkpoints:
    """Open what holds a checkpoint of a run: its best may lie in a folder apart."""
    apart = as_path(workdir) / BEST
    if checkpoint == "best" and config.checkpoint.best_metric and apart.is_dir():
        return Checkpoints(apart)
    return Checkpoints(workdir)


def choose_step(
    checkpoints: Checkpoints, checkpoint: int | str, config: ConfigDict
) -> int:
    """The step that "best", "last" or a number means.

    "best" is by checkpoint.best_metric and best_mode; the last where the config names
    no such metric.

    Raises: ValueError: no checkpoint, not this one, or none with the metric.
    """
    workdir, metric = checkpoints.folder.parent, config.checkpoint.best_metric
    steps = checkpoints.steps
    if not steps:
        raise ValueError(
            f"checkpoint: {workdir} holds none; train first, or name the folder "
            "that train.py --workdir wrote"
        )
    if checkpoint == "best" and metric:
        step = checkpoints.best_step(metric, config.checkpoint.best_mode)
        if step is None:
            raise ValueError(
                f"checkpoint: none in {workdir} was evaluated by {metric!r}; ask "
                f"for last or one of {steps}"
            )
        return step
    if checkpoint in ("best", "last"):
        return steps[-1]
    if str(checkpoint).isdecimal() and int(checkpoint) in steps:
        return int(checkpoint)
    raise ValueError(
        f"checkpoint: {workdir} has no {checkpoint!r}; ask for best, last or "
        f"one of {steps}"
    )


def restore_arrays(
    workdir: str | os.PathLike,
    checkpoint: int | str,
    config: ConfigDict,
    wanted: Callable[[str], bool],
) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Read some arrays of a run onto the first device; no task is built for it.

    Args:
      workdir: the run's folder; nothing in it is changed.
      checkpoint: as `choose_step`.
      config: of the run.
      wanted: path of an array, such as "params/backbone/head/kernel" -> whether to
        read it.
    Returns: the step; the trees `params` and `collections` of what was wanted.
    Raises: ValueError: as `choose_step`.
    """
    checkpoints = _open(workdir, checkpoint, config)
    try:
        step = choose_step(checkpoints, checkpoint, config)
        folder = checkpoints.folder / str(step) / "model"
    finally:
        checkpoints.close()
    reader = ocp.PyTreeCheckpointer()
    stored = reader.metadata(folder).item_metadata.tree
    flat = flatten_dict(
        {name: stored.get(name) or {} for name in ("params", "collections")}, sep="/"
    )
    chosen = {path: leaf for path, leaf in flat.items() if wanted(path)}
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = {p: jax.ShapeDtypeStruct(x.shape, x.dtype) for p, x in chosen.items()}
    how = {
        path: ocp.ArrayRestoreArgs(sharding=place, dtype=x.dtype, global_shape=x.shape)
        for path, x in chosen.items()
    }
    trees: dict[str, Any] = {"params": {}, "collections": {}}
    if chosen:
        arguments = ocp.args.PyTreeRestore(
            item=unflatten_dict(shapes, sep="/"),
            restore_args=unflatten_dict(how, sep="/"),
            partial_restore=True,
        )
        trees |= reader.restore(folder, args=arguments)
    return step, trees["params"], trees["collections"]


def restore_for_eval(
    workdir: str | os.PathLike,
    checkpoint: int | str,
    abstract_state: TrainState,
    config: ConfigDict,
) -> TrainState:
    """Restore a run's parameters and collections for evaluation.

    Args:
      workdir: the run's folder; nothing in it is changed.
      checkpoint: as `choose_step`.
      abstract_state: from `state.abstract_state`; its opt_state is not looked at.
      config: says the same of the network as the run's own (`config.NETWORK`).
    Returns: a TrainState whose opt_state, rng and nonfinite_step are None.
    Raises: ValueError: no checkpoint, not this one, none with the metric, or one of
      another model (the first fields or arrays that differ are named).
    """
    checkpoints = _open(workdir, checkpoint, config)
    try:
        step = choose_step(checkpoints, checkpoint, config)
        changes = network_changes(checkpoints.meta(step)["config"], config)
        if changes:
            told = "; ".join(changes[:5])
            raise ValueError(
                f"checkpoint: step {step} in {workdir} is of another network: "
                f"{len(changes)} fields of the config differ: {told}; use the config "
                "that the run was made with, its overrides included"
            )
        return checkpoints.restore(step, abstract_state.replace(opt_state=None))
    finally:
        checkpoints.close()


def fingerprint(state: TrainState) -> dict[str, str]:
    """Write each array of a state as {"params/a/kernel": "float32[3, 4]"}."""
    parts = {
        "params": state.params,
        "collections": state.collections,
        "opt_state": state.opt_state,
    }
    return {
        path: f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in flatten_with_paths(parts).items()
    }


def _system_error(error: BaseException) -> int | None:
    """The system's number for what an error, or one behind it, is about."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        # TensorStore raises ValueError with the number in its text.
        if found := re.search(r"os_error_code='(\d+)'", str(error)):
            return int(found[1])
        error = error.__cause__ or error.__context__
    return None


def _all_see(folder: AnyPath) -> bool:
    """Ask process 0 for all: another one may look when process 0 has made the folder.

    Orbax opens a folder together, so the processes must agree that there is one.
    """
    seen = np.int32(folder.is_dir())
    if jax.process_count() > 1:
        seen = multihost_utils.broadcast_one_to_all(seen)
    return bool(seen)


def _parts(state: TrainState) -> dict[str, dict[str, Any]]:
    """The arrays of a state by the part of the checkpoint that holds them."""
    return {
        part: {name: getattr(state, name) for name in names}
        for part, names in (("model", _MODEL), ("rest", _REST))
    }


def _options(
    config: ConfigDict | None, evaluated: bool
) -> ocp.CheckpointManagerOptions:
    if config is None:
        return ocp.CheckpointManagerOptions(create=False)
    kept = [policies.LatestN(config.keep_last)]
    rank = None
    if config.best_metric:
        worst = math.inf if config.best_mode == "min" else -math.inf

        def rank(metrics):
            value = metrics.get(config.best_metric, worst)
            return value if math.isfinite(value) else worst

        if evaluated:
            reverse = config.best_mode == "min"
            kept.append(policies.BestN(get_metric_fn=rank, reverse=reverse, n=1))
    return ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(kept),
        # Without best_fn Orbax keeps metrics in memory only, and the first save after
        # a restart would delete the best checkpoint.
        best_fn=rank,
        best_mode=config.best_mode,
        enable_async_checkpointing=True,
        cleanup_tmp_directories=True,
    )
