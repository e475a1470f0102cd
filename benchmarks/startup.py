"""How long a command takes to start: imports, and the first step of a config.

    taskset -c 0 python -m benchmarks startup [--config configs/digits.py]

Every part runs in a process of its own, without programs kept on disk. Seconds of the
processor and of the clock; appends a line to benchmarks/results/startup.jsonl.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

IMPORTS = ("kprpe_jax", "jax", "kprpe_jax.backbones.vit", "kprpe_jax.training.loop")


_TIMED = "import time; p, w = time.process_time(), time.perf_counter(); import {}; "
_TIMED += "print([time.process_time() - p, time.perf_counter() - w])"


class _Clock:
    """Seconds since the last part ended."""

    def __init__(self):
        self.parts: dict[str, list[float]] = {}
        self._last = self._now()

    def end(self, name: str) -> None:
        now = self._now()
        self.parts[name] = [b - a for a, b in zip(self._last, now, strict=True)]
        self._last = now

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.process_time(), time.perf_counter()


def first_step(config: Any) -> dict[str, list[float]]:
    """Seconds (processor, clock) of every part of a first step, as the loop makes it.

    Args:
      config: of a task whose data is embedded.
    """
    import jax

    from kprpe_jax import tasks
    from kprpe_jax.core.mesh import make_mesh
    from kprpe_jax.training import loop, step
    from kprpe_jax.training.optimizer import make_optimizer
    from kprpe_jax.training.state import abstract_state, new_state

    with tempfile.TemporaryDirectory() as folder:
        config.data.dir = folder
        loop.prepare_data(config)
        mesh, clock = make_mesh(config.mesh), _Clock()
        task = tasks.build(config, mesh)
        rows = task.open_training(config.seed)
        optimizer = make_optimizer(
            config.optimizer, steps=config.steps, steps_per_epoch=len(rows.source)
        )
        abstract = abstract_state(task, mesh, optimizer.transformation)
        batches = loop._open_batches(config, rows, 0)
        _, batch = loop._next_batch(batches, task, mesh)
        clock.end("task, shapes, first batch")
        state = jax.block_until_ready(
            new_state(task, optimizer.transformation, abstract, seed=config.seed)
        )
        clock.end("state: traced, compiled, made")
        accumulate_steps = config.optimizer.accumulate_steps
        update = step.make_train_step(
            task.loss, optimizer, mesh=mesh, accumulate_steps=accumulate_steps,
            sample_classes=task.sample_classes,
        )  # fmt: skip
        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        train_step = step.CompiledStep(update, shardings, mesh)
        train_step.compile(abstract, batch)
        clock.end("step: traced, compiled")
        jax.block_until_ready(train_step(state, batch))
        clock.end("step: run")
        batches.close()
    return clock.parts


def _run(*command: str) -> Any:
    environ = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    done = subprocess.run(
        [sys.executable, *command], env=environ, check=True, stdout=subprocess.PIPE
    )
    return json.loads(done.stdout.splitlines()[-1])


def _median(values: list[list[float]]) -> dict[str, float]:
    """The one in the middle by processor time."""
    processor, clock = sorted(values)[len(values) // 2]
    return {"processor_s": processor, "clock_s": clock}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--config", default="configs/digits.py", help="path (configs/digits.py)"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="processes of each part; the median (3)"
    )
    parser.add_argument(
        "--here", action="store_true", help="make the first step in this process"
    )


def run(options: argparse.Namespace) -> None:
    """Measure, print and record."""
    if options.here:
        from kprpe_jax.training.config import load_config

        config = load_config(options.config, [])
        config.unlock()
        sys.stdout.write(json.dumps(first_step(config)) + "\n")
        return
    from benchmarks import harness

    rounds = range(options.rounds)
    results = {
        f"import {name}": _median([_run("-c", _TIMED.format(name)) for _ in rounds])
        for name in IMPORTS
    }
    first = ("-m", "benchmarks", "startup", f"--config={options.config}", "--here")
    runs = [_run(*first) for _ in rounds]
    results |= {name: _median([run[name] for run in runs]) for name in runs[0]}
    for name, row in results.items():
        sys.stdout.write(
            f"{name:32} {row['processor_s']:7.2f} s of the processor  "
            f"{row['clock_s']:7.2f} s\n"
        )
    settings = dict(config=options.config)
    settings["usable_cores"] = len(os.sched_getaffinity(0))
    harness.record("startup", settings, results)
