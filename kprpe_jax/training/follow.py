"""Evaluate the checkpoints of a run that trains elsewhere, as they come."""

import contextlib
import json
import math
import os
import pathlib
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from kprpe_jax import tasks
from kprpe_jax.tasks.task import run_evaluators
from kprpe_jax.training.checkpoint import BEST, FOLDER, METRICS, restore_for_eval
from kprpe_jax.training.evaluate import choose_evaluators, prepare
from kprpe_jax.training.events import EventFile
from kprpe_jax.training.rows import append_row, read_rows
from kprpe_jax.training.runs import read_config
from kprpe_jax.training.sole_run import sole_follower
from kprpe_jax.training.state import abstract_state

_TAKEN = "following"  # folder of the checkpoint that is being evaluated
_EVENTS = "evaluation"  # folder of TensorBoard events
_LAST_FILE = "commit_success.txt"  # of a checkpoint, by Orbax
_WAIT, _END, _NOTHING_NEW = -1, -2, -3  # what to do, beside steps to evaluate


class NothingNewError(Exception):
    """The run that is followed has neither ended nor written anything for long."""


def follow(
    config: ConfigDict,
    workdir: str | os.PathLike,
    *,
    evaluators: Sequence[str] = (),
    patience: float = 3600.0,
    poll: float = 5.0,
) -> dict[str, float]:
    """Evaluate each checkpoint of a run, old ones first, until the run is at its end.

    A checkpoint is linked into a folder of its own first (copied, where the file system
    has no links), so that the training may delete it meanwhile. Results go into the
    run's metrics.jsonl, to stdout and to TensorBoard. Where the training evaluates
    nothing itself (`evals.every_steps` 0), the best checkpoint by
    `checkpoint.best_metric` is kept in the folder `best`, for `RUN@best`. Steps
    that are in metrics.jsonl are not evaluated again.

    Args:
      config: of the run; what `runs.NETWORK` does not name may differ from training.
      workdir: the run's folder.
      evaluators: names; by default those of evals.in_training, or all.
      patience: seconds without anything new of an unfinished run before this ends.
      poll: seconds between looks at the folder.
    Returns: {"evaluator/metric": value} and `step` of the last that was evaluated; {} =
      none was left to do.
    Raises: ValueError: as `evaluate.evaluate`; a best metric that is not evaluated;
      another follower. NothingNewError: `patience` is over.
    """
    mesh = prepare(config)
    task = tasks.build(config, mesh)
    asked = evaluators or tuple(config.evals.in_training)
    names = choose_evaluators(asked, task.evaluators)
    abstract = abstract_state(task, mesh)
    is_main = jax.process_index() == 0
    run = _Run(pathlib.Path(workdir), config, names, patience)
    results: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        check_interrupts = stack.enter_context(_kept_interrupts())
        if is_main:
            stack.enter_context(sole_follower(workdir))
            run.begin()
            stack.callback(run.drop)
            events = stack.enter_context(contextlib.closing(run.open_events()))
        while True:
            check_interrupts()
            found = _agree(run.look() if is_main else 0)
            if found == _WAIT:
                time.sleep(poll)
                continue
            if found == _END:
                return results
            if found == _NOTHING_NEW:
                raise NothingNewError(run.nothing_new())
            try:
                state = restore_for_eval(run.taken, found, abstract, config)
            except Exception:
                if run.is_there(found):
                    raise
                if is_main:  # it was being deleted while it was linked
                    run.deleted(found)
                continue
            results = run_evaluators(task, names, state, mesh)
            if is_main:
                run.write(found, results)
                events.write(found, results)
            results = {"step": found, **results}


class _Run:
    """The folder of a run, seen from another process."""

    def __init__(
        self,
        folder: pathlib.Path,
        config: ConfigDict,
        names: Sequence[str],
        patience: float,
    ):
        """Check what is to be the best; write nothing."""
        self.folder, self.taken = folder, folder / _TAKEN
        self._names, self._patience = names, patience
        self._metric, self._mode = "", config.checkpoint.best_mode
        if not read_config(folder).evals.every_steps:
            self._metric = config.checkpoint.best_metric
        if self._metric and self._metric.split("/")[0] not in names:
            raise ValueError(
                f"eval --follow: checkpoint.best_metric {self._metric!r} must be of an "
                f"evaluator that runs, of {', '.join(names)}; add it to --evaluators"
            )
        self._changed, self._seen = time.monotonic(), None
        self._done: set[int] = set()
        self._best = math.nan

    def begin(self) -> None:
        """Read what was done before, and clean up."""
        self.drop()
        for row in read_rows(self.folder / "metrics.jsonl"):
            if all(any(key.startswith(f"{n}/") for key in row) for n in self._names):
                self._done.add(row["step"])
        for path in self._steps(self.folder / BEST).values():
            stored = json.loads((path / METRICS).read_text())
            value = stored.get(self._metric, math.nan)
            self._best = value if self._is_better(value) else self._best

    def open_events(self) -> EventFile:
        """TensorBoard events beside those of the training."""
        folder = self.folder / _EVENTS
        folder.mkdir(exist_ok=True)
        return EventFile(folder, max(self._done, default=0) + 1)

    def look(self) -> int:
        """Take the first checkpoint that was not evaluated; its step, or what to do."""
        while True:
            steps = self._steps(self.folder)
            new = sorted(steps.keys() - self._done)
            if not new:
                break
            if _link_tree(steps[new[0]], self.taken / FOLDER / str(new[0])):
                return new[0]
            self.deleted(new[0])
        if max(self._done, default=0) >= read_config(self.folder).steps:
            return _END
        seen = sorted(steps), _size(self.folder / "metrics.jsonl")
        if seen != self._seen:
            self._changed, self._seen = time.monotonic(), seen
        over = time.monotonic() - self._changed > self._patience
        return _NOTHING_NEW if over else _WAIT

    def is_there(self, step: int) -> bool:
        """Whether the run still has a checkpoint."""
        time.sleep(1)  # deleting takes its time
        return (self.folder / FOLDER / str(step)).exists()

    def deleted(self, step: int) -> None:
        """Leave out a checkpoint that is no more."""
        self._done.add(step)
        self.drop()
        _say(f"step {step} was deleted before it was read (checkpoint.keep_last)")

    def write(self, step: int, results: Mapping[str, float]) -> None:
        """Write the results of the checkpoint that was taken; keep it if it is best."""
        told = "  ".join(f"{name} {value:.4f}" for name, value in results.items())
        _say(f"step {step}  {told}")
        if self._metric:
            if self._metric not in results:
                raise ValueError(
                    f"checkpoint.best_metric must be one of {', '.join(results)}; got "
                    f"{self._metric!r}"
                )
            if self._is_better(value := results[self._metric]):
                self._keep(step, results)
                self._best = value
        append_row(self.folder / "metrics.jsonl", step, results)
        self._done.add(step)
        self.drop()

    def nothing_new(self) -> str:
        """Say what was waited for in vain."""
        steps = read_config(self.folder).steps
        return (
            f"eval --follow: {self.folder} has had nothing new for "
            f"{self._patience / 60:g} minutes after step {max(self._done, default=0)} "
            f"of {steps}; start the training again, then this"
        )

    def drop(self) -> None:
        """Let go of the checkpoint that was taken."""
        shutil.rmtree(self.taken, ignore_errors=True)

    def _is_better(self, value: float) -> bool:
        sign = 1 if self._mode == "max" else -1
        return math.isfinite(value) and not sign * value <= sign * self._best

    def _keep(self, step: int, results: Mapping[str, float]) -> None:
        """Move the checkpoint to the best; in between there may be two, never none."""
        taken = self.taken / FOLDER / str(step)
        metrics = taken / METRICS
        metrics.parent.mkdir(exist_ok=True)
        metrics.unlink(missing_ok=True)  # a link: the training's own stays as it is
        metrics.write_text(json.dumps(dict(results)))
        folder = self.folder / BEST / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        before = self._steps(self.folder / BEST)
        shutil.rmtree(before.pop(step, folder / "none"), ignore_errors=True)
        taken.rename(folder / str(step))
        for path in before.values():
            shutil.rmtree(path)
        _say(f"step {step} is the best: {self._metric} {results[self._metric]:.4f}")

    def _steps(self, folder: pathlib.Path) -> dict[int, pathlib.Path]:
        """The whole checkpoints of a folder: those with the file that comes last."""
        found = (path.parent for path in (folder / FOLDER).glob(f"*/{_LAST_FILE}"))
        return {int(path.name): path for path in found if path.name.isdecimal()}


@contextlib.contextmanager
def _kept_interrupts() -> Iterator[Callable[[], None]]:
    """A function that raises a Ctrl-C again which something has swallowed.

    Event loops, as Orbax has while it reads, and garbage collectors lose the exception;
    the run would then be followed as if nothing had happened.
    """
    came = False

    def handle(*_: object) -> None:
        nonlocal came
        came = True
        raise KeyboardInterrupt

    def check() -> None:
        if came:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield check  # only the main thread hears of signals
        return
    before = signal.signal(signal.SIGINT, handle)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)


def _agree(value: int) -> int:
    """What the first process says."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def _link_tree(source: pathlib.Path, target: pathlib.Path) -> bool:
    """Link all files of a folder, or copy them; False = it was deleted meanwhile."""
    try:
        shutil.copytree(source, target, copy_function=_link)
    except (FileNotFoundError, shutil.Error):
        time.sleep(1)  # deleting takes its time
        if source.exists():
            raise
        return False
    return True


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # no links here
        shutil.copyfile(source, target)


def _size(path: pathlib.Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
