"""The training loop, one for every task; read `train` from top to bottom."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from kprpe_jax import registry, tasks
from kprpe_jax.core import mesh as mesh_lib
from kprpe_jax.core.paths import bucket_errors
from kprpe_jax.core.processes import describe_processes
from kprpe_jax.data import loader
from kprpe_jax.data.prepare import prepare
from kprpe_jax.tasks.task import Task, TrainingRows, run_evaluators
from kprpe_jax.training import runs
from kprpe_jax.training.by_path import check_patterns, freeze_loss
from kprpe_jax.training.checkpoint import Checkpoints
from kprpe_jax.training.config import check_config
from kprpe_jax.training.finite import check_finite
from kprpe_jax.training.logging import RunLog, describe_run
from kprpe_jax.training.optimizer import make_optimizer
from kprpe_jax.training.profiling import Profile
from kprpe_jax.training.runs import check_origin, save_origin
from kprpe_jax.training.sole_run import sole_run
from kprpe_jax.training.start import put_start, read_start, save_start
from kprpe_jax.training.state import TrainState, abstract_state, new_state
from kprpe_jax.training.step import CompiledStep, make_train_step
from kprpe_jax.training.timing import Timer
from kprpe_jax.training.utilization import least_step_seconds, memory_in_use
from kprpe_jax.training.watchdog import Watchdog


class UnknownMetricError(ValueError):
    """No evaluator gives the metric that the best checkpoint is chosen by."""


def train(
    config: ConfigDict,
    workdir: str | os.PathLike,
    *,
    task: Task | None = None,
    extend: bool = False,
    found_by: str | None = None,
) -> dict[str, float]:
    """Train to the end, from the last checkpoint in `workdir` if there is one.

    A new run starts from `config.model.weights`, if they are named; its own checkpoints
    hold all that it needs to continue.

    A run that was stopped in any way and started again gives what one uninterrupted
    run gives. After SIGTERM it saves a checkpoint and returns. Where an evaluation
    fails it saves one, too, and the next start begins with that evaluation; of several
    processes only where all fail alike, by `checkpoint.best_metric`.

    Args:
      config: see `config.FIELDS` for what the loop reads.
      workdir: folder for checkpoints, metrics and the config; made if missing.
      task: what to train; by default `tasks.build` makes it from the config.
      extend: the config may have more steps than the run in `workdir`, finished or not,
        which goes on under the schedule of the new number: a cosine that had come to
        its end begins again where the longer one is at that step.
      found_by: of `initialize_distributed`, for the first line of the log; None = the
        line is left out.
    Returns: the last evaluation, the last training metrics, and `step`: less than
      config.steps if SIGTERM stopped the run.

    Raises:
      ValueError: a fault of config, data, mesh or workdir; nothing was written.
      finite.NonFiniteError: see there; the last good checkpoint stays.
      OSError: a full disk, or another error of the disk that `workdir` lies on; the
        checkpoints before stay, and the same call goes on once there is room.
    """
    # ---- check ----------------------------------------------------------------------
    began = time.monotonic()
    check_config(config)
    changes = runs.check_workdir(config, workdir, extend=extend)
    mesh = mesh_lib.make_mesh(config.mesh)
    batch_size = config.data.batch_size
    mesh_lib.check_batch_size(batch_size, config.optimizer.accumulate_steps, mesh)
    if config.evals.in_training:
        evaluated_rows = config.evals.batch_size
        mesh_lib.check_batch_size(evaluated_rows, 1, mesh, field="evals.batch_size")

    # ---- data, task, optimizer ------------------------------------------------------
    if task is None:
        prepare_data(config)
        task = tasks.build(config, mesh)
    check_origin(workdir, task.origin)
    _check_evaluators(config, task)
    check_patterns(config, jax.eval_shape(task.init, jax.random.key(0))["params"])
    freeze = tuple(config.get("model", {}).get("freeze", ()))
    rows = task.open_training(config.seed)
    optimizer = make_optimizer(
        config.optimizer,
        steps=config.steps,
        steps_per_epoch=len(rows.source) / batch_size,
        freeze=freeze,
    )

    # ---- state, sharded; from a checkpoint or new -----------------------------------
    abstract = abstract_state(task, mesh, optimizer.transformation)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    start = _check_last_checkpoint(workdir, abstract)
    weights = None if start else read_start(config, task, abstract, workdir)
    batches = _open_batches(config, rows, start)
    ids, batch = _next_batch(batches, task, mesh)
    is_main = jax.process_index() == 0
    with _disk_of(workdir), contextlib.ExitStack() as stack:
        if is_main:
            check_sole = stack.enter_context(sole_run(workdir))
            runs.save_config(config, workdir)
            save_origin(workdir, task.origin)
            if weights:
                save_start(workdir, weights)
        stop_asked = stack.enter_context(_preemption())
        evaluates = config.evals.every_steps > 0  # else another process does
        watchdog = Watchdog(config.log.get("watchdog_minutes", 0.0))
        stack.callback(watchdog.pause)
        checkpoints = stack.enter_context(
            contextlib.closing(
                Checkpoints(workdir, config.checkpoint, evaluated=evaluates)
            )
        )
        log = stack.enter_context(
            contextlib.closing(
                RunLog(workdir, steps=config.steps, start_step=start, is_main=is_main)
            )
        )
        stored = checkpoints.meta(start) if start else {}
        timer = Timer(
            batch_size=batch_size,
            devices=mesh.size,
            before=log.times_before,
            training_before=stored.get("training_seconds", 0.0),
            began=began,
        )
        stack.callback(timer.close)
        owed = stored.get("evaluation_owed", False)  # it failed, and ended the run
        if found_by is not None:
            for line in describe_processes(found_by, os.environ):
                log.say(line)
        if start >= config.steps and not owed:
            log.say(f"all {start} steps were done before")
            return {**stored["results"], "step": start}
        if start:
            state = checkpoints.restore(start, abstract)
            log.say(f"continues after step {start} {'; '.join(changes)}".rstrip())
        else:
            state = new_state(
                task, optimizer.transformation, abstract, seed=config.seed
            )
        if weights:
            state = put_start(state, weights.merged)
            for line in (f"starts from {weights.origin['spec']}", *weights.lines):
                log.say(line)
        meta = {
            "version": runs.VERSION,
            "config": config.to_dict(),
            "versions": runs.versions(),
        }
        trained: dict[str, float] = {}
        evaluated: dict[str, float] = {}

        def save(step, metrics=None, **more):
            data_state, results = {"next_batch": step}, {**trained, **evaluated}
            facts = {**meta, "data": data_state, "results": results, **more}
            facts["training_seconds"] = timer.training_seconds
            if is_main:
                check_sole()
            with timer.spending("saving"):
                log.flush()
                checkpoints.save(state, step=step, meta=facts, metrics=metrics)

        def evaluate():
            with timer.spending("evaluating"):
                return _evaluate(task, state, mesh, config)

        if owed:
            trained = stored["results"]
            evaluated = evaluate()
            log.evaluation(start, evaluated)
            save(start, evaluated)
            if start == config.steps:
                return {**trained, **evaluated, "step": start}

        # ---- compile the step; say what will run ------------------------------------
        pure_step = make_train_step(
            freeze_loss(task.loss, freeze),
            optimizer,
            mesh=mesh,
            accumulate_steps=config.optimizer.accumulate_steps,
            sample_classes=task.sample_classes,
        )
        train_step = CompiledStep(pure_step, shardings, mesh)
        compiled = train_step.compile(abstract, batch)
        for line in describe_run(abstract, compiled, mesh):
            log.say(line)
        least, told = least_step_seconds(pure_step, (abstract, batch), mesh)
        timer.least_step_seconds = least
        profile = Profile(
            config.get("profile", {}), workdir, done=start, last=config.steps
        )
        stack.callback(profile.close)
        for line in filter(None, (told, profile.line)):
            log.say(line)

        # ---- steps ------------------------------------------------------------------
        unchecked_ids: dict[int, np.ndarray] = {}  # of the steps since the last check
        unlogged: list[dict[str, jax.Array]] = []
        timer.restart()
        for step in range(start + 1, config.steps + 1):
            unchecked_ids[step] = ids
            profile.before(step)
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                state, metrics = train_step(state, batch)  # before it is done
            timer.dispatched(metrics["loss"])
            watchdog.step()
            unlogged.append(metrics)
            last = step == config.steps
            if not last:  # read and put the next batch while the devices work
                with timer.reading():
                    ids, batch = _next_batch(batches, task, mesh)
            if line := profile.after(step, metrics):
                log.say(line)
            stop = stop_asked(step)

            log_now = last or step % config.log.every_steps == 0
            evaluate_now = evaluates and (last or step % config.evals.every_steps == 0)
            save_now = last or stop or step % config.checkpoint.every_steps == 0
            # "best" is the state that was evaluated, not a near one.
            save_now |= evaluate_now and bool(config.checkpoint.best_metric)
            if not (log_now or evaluate_now or save_now):
                continue
            param_norm = check_finite(state, unchecked_ids, checkpoints)
            unchecked_ids.clear()
            timer.settle()
            if log_now:
                trained = _mean(unlogged)
                unlogged.clear()
                trained["param_norm"] = param_norm
                trained["compilations"] = train_step.compilations
                log.progress(step, trained, {**timer.interval(), **memory_in_use()})
                if warning := timer.warning():
                    log.warn(warning)
            if evaluate_now or save_now:
                watchdog.pause()
            if evaluate_now:
                try:
                    evaluated = evaluate()
                except Exception as error:  # the steps are worth keeping
                    # A save waits for all processes, which may not have failed.
                    everywhere = isinstance(error, UnknownMetricError)
                    if everywhere or jax.process_count() == 1:
                        save(step, evaluation_owed=True)
                        log.say(
                            f"evaluation failed after step {step}, saved in {workdir}"
                        )
                    raise
                log.evaluation(step, evaluated)
            if save_now:
                save(step, evaluated if evaluate_now else None)
            if stop:
                checkpoints.wait()
                log.say(f"SIGTERM: stops after step {step}, saved in {workdir}")
                break
        with timer.spending("saving"):
            checkpoints.wait()
        log.say(timer.summary())
    return {**trained, **evaluated, "step": step}


def prepare_data(config: ConfigDict) -> None:
    """Write a data set of `registry.DATA_SETS` that is not there yet, in one process.

    Its arguments are the config's section data.builder, if there is one; the other
    processes wait. Other data sets are left alone.

    Raises: ValueError: as `prepare`, such as a data set from other arguments.
    """
    if jax.process_index() == 0 and config.data.name in registry.DATA_SETS:
        arguments = config.data.get("builder", {})
        prepare(config.data.name, config.data.dir, **arguments)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("prepare_data")


def _check_evaluators(config: ConfigDict, task: Task) -> None:
    known = ", ".join(task.evaluators) or "(none)"
    for name in config.evals.in_training:
        if name not in task.evaluators:
            raise ValueError(
                f"evals.in_training must name evaluators of {known}; got {name!r}"
            )
    metric = config.checkpoint.best_metric
    if metric and metric.split("/")[0] not in config.evals.in_training:
        raise ValueError(
            "checkpoint.best_metric must be EVALUATOR/METRIC, with an evaluator of "
            f"evals.in_training, or empty; got {metric!r}"
        )


def _check_last_checkpoint(workdir: str | os.PathLike, abstract: TrainState) -> int:
    """Give the last checkpoint's step, 0 if there is none; write nothing."""
    with contextlib.closing(Checkpoints(workdir)) as checkpoints:
        if not checkpoints.steps:
            return 0
        last = checkpoints.steps[-1]
        checkpoints.check(last, abstract)
        return last


def _open_batches(config: ConfigDict, rows: TrainingRows, start: int) -> Iterator[dict]:
    return loader.train_batches(
        rows.source,
        rows.order,
        batch_size=config.data.batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        start_step=start,
        num_threads=config.data.num_threads,
        num_workers=config.data.num_workers,
    )


def _next_batch(
    batches: Iterator[dict], task: Task, mesh: jax.sharding.Mesh
) -> tuple[np.ndarray, dict[str, jax.Array]]:
    """Read and check a batch; give its row ids on the host, and it on the devices."""
    batch = next(batches)
    task.check_batch(batch)
    return batch["id"], mesh_lib.put_batch(batch, mesh)


@contextlib.contextmanager
def _disk_of(workdir: str | os.PathLike) -> Iterator[None]:
    """Errors of the disk or bucket that name no file name the run's folder."""
    try:
        with bucket_errors(workdir):
            yield
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(workdir)
        raise


@contextlib.contextmanager
def _preemption() -> Iterator[Callable[[int], bool]]:
    """Give a function step -> whether SIGTERM asks to stop after this step.

    Several processes must stop after the same step: JAX's preemption service, which
    runs wherever `jax.distributed` does, has them agree without touching a device. It
    has its own signal handler, which one of ours would displace.
    """
    if jax.distributed.is_initialized():
        yield multihost_utils.reached_preemption_sync_point
        return
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: False  # only the main thread may handle signals
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield lambda step: asked.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)


def _mean(metrics: list[dict[str, jax.Array]]) -> dict[str, float]:
    """Average the metrics of the steps since the last log."""
    rows = jax.device_get(metrics)
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _evaluate(
    task: Task, state: TrainState, mesh: jax.sharding.Mesh, config: ConfigDict
) -> dict[str, float]:
    """Run the evaluators of `evals.in_training`; give {"evaluator/metric": value}."""
    results = run_evaluators(task, config.evals.in_training, state, mesh)
    best_metric = config.checkpoint.best_metric
    if best_metric and best_metric not in results:
        raise UnknownMetricError(
            f"checkpoint.best_metric must be one of {', '.join(results)}; "
            f"got {best_metric!r}"
        )
    return results
