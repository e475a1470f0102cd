"""Kill trainings at random moments: the end must be that of one straight run."""

import collections
import os
import pathlib
import random
import time
from typing import Any

import jax
import numpy as np

from tests.training.processes import (
    all_states,
    finish,
    metrics,
    start,
    start_two,
)

STEPS, EVERY, EVALUATED = 120, 4, 20  # of a run; saves come at every fourth step
ARGUMENTS = [
    f"--config.steps={STEPS}",
    f"--config.checkpoint.every_steps={EVERY}",
    f"--config.evals.every_steps={EVALUATED}",
]
_PATIENCE = 300  # seconds until a process must have ended
_GRACE = 150  # seconds for the other process to notice


def cached(folder: pathlib.Path) -> dict[str, str]:
    """Environment of processes that share their compiled programs."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }


def begin(workdir: pathlib.Path, processes: int, environ: dict[str, str]) -> list:
    """Start a training of one process or of two."""
    if processes == 2:
        return start_two(workdir, *ARGUMENTS, **environ)
    return [start(workdir, *ARGUMENTS, **environ)]


def run_straight(
    workdir: pathlib.Path, processes: int, environ: dict[str, str]
) -> tuple[float, float]:
    """Train without a kill; give the seconds to the first step and to the end."""
    began, first = time.monotonic(), None
    running = begin(workdir, processes, environ)
    while running[0].poll() is None:
        if first is None and (workdir / "metrics.jsonl").exists():
            first = time.monotonic() - began
        time.sleep(0.01)
    for process in running:
        code, _, err = finish(process)
        if code:
            raise RuntimeError(f"the straight run failed: {err}")
    return first, time.monotonic() - began


def differences(straight: pathlib.Path, other: pathlib.Path) -> list[str]:
    """What differs between two runs: kept steps, bits of states, metrics."""
    own, their = all_states(straight), all_states(other)
    if own.keys() != their.keys():
        return [f"the steps {list(own)} and {list(their)} were kept"]
    found = []
    for step, state in own.items():
        same = jax.tree.map(_same_bits, state, their[step])
        if not all(jax.tree.leaves(same)):
            found.append(f"the states of step {step} differ")
    if metrics(straight) != metrics(other):
        found.append("metrics.jsonl differs")
    return found


def _same_bits(a: Any, b: Any) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    same = a.dtype == b.dtype and a.shape == b.shape
    return same and a.tobytes() == b.tobytes()


def kill_often(
    folder: pathlib.Path, *, kills: int, processes: int, seed: int, say: Any
) -> dict[str, Any]:
    """Kill trainings until there were so many kills; compare each that came to its end.

    Half of the kills come at any moment of a process's life, its start included, the
    others after the beginning of a save. Of two processes one is killed, and what the
    other does is noted.

    Returns: what happened, in numbers; `differences` must be empty.
    """
    rng, environ = random.Random(seed), cached(folder)
    run_straight(folder / "warm", processes, environ)
    straight = folder / "straight"
    startup, seconds = run_straight(straight, processes, environ)
    say(f"straight: first step after {startup:.1f} s, all after {seconds:.1f} s")
    counts: collections.Counter = collections.Counter()
    waits, wrong, began = [], [], time.monotonic()
    while counts["kills"] < kills or counts["open"]:
        workdir = folder / f"run_{counts['runs']}"
        counts["open"] = 1
        before = _unfinished(workdir)
        running = begin(workdir, processes, environ)
        killed = None
        stuck = counts["stuck"]
        if counts["kills"] < kills:
            killed = _kill(running, workdir, rng, startup, counts)
        if killed is not None:
            waits += _end_others(running, killed, counts)
            counts["unfinished saves"] += bool(_unfinished(workdir) - before)
            for process in running:
                _, _, err = finish(process)
                if counts["stuck"] > stuck:
                    say(f"stuck: {err[-1500:]}")
            if counts["kills"] % 10 == 0:
                say(f"{counts['kills']} kills, {time.monotonic() - began:.0f} s")
            continue
        for process in running:
            code, _, err = finish(process)
            if code:
                wrong.append(f"exit code {code}: {err.strip()[-500:]}")
        wrong += [f"{workdir.name}: {x}" for x in differences(straight, workdir)]
        counts["runs"] += 1
        counts["open"] = 0
        say(
            f"{counts['kills']} kills, {counts['runs']} runs at their end, "
            f"{len(wrong)} differences, {time.monotonic() - began:.0f} s"
        )
    del counts["open"]
    found = {**counts, "seconds": round(time.monotonic() - began), "differences": wrong}
    if waits:
        found["longest wait for the other process"] = round(max(waits), 1)
    return found


def _kill(
    running: list,
    workdir: pathlib.Path,
    rng: random.Random,
    startup: float,
    counts: collections.Counter,
) -> int | None:
    """Kill one of the processes; its number, None where the run came to its end."""
    chosen = rng.randrange(len(running))
    began, saves = time.monotonic(), rng.randint(1, 4)
    saving = rng.random() < 0.5
    delay = rng.uniform(0, 0.15) if saving else rng.uniform(0, 1.5 * startup)
    seen = _unfinished(workdir)
    while saving and saves:
        now = _unfinished(workdir)
        saves -= bool(now - seen)
        seen = now
        if any(process.poll() is not None for process in running):
            return None
        if time.monotonic() - began > _PATIENCE:
            counts["stuck"] += 1  # killed all the same; the report says it
            break
        time.sleep(0.001)
    time.sleep(delay)
    if any(process.poll() is not None for process in running):
        return None
    running[chosen].kill()
    running[chosen].wait()
    counts["kills"] += 1
    counts["kills at a save" if saving else "kills at any moment"] += 1
    return chosen


def _end_others(running: list, killed: int, counts: collections.Counter) -> list[float]:
    """Wait until the other process notices, or kill it; seconds that it took."""
    waits = []
    for number, process in enumerate(running):
        if number == killed:
            continue
        began = time.monotonic()
        while process.poll() is None and time.monotonic() - began < _GRACE:
            time.sleep(0.05)
        if process.poll() is None:
            process.kill()
            counts["others that never noticed"] += 1
        elif process.returncode == 0:
            counts["others that came to their end"] += 1
        else:
            counts["others that ended"] += 1
            waits.append(time.monotonic() - began)
    return waits


def _unfinished(workdir: pathlib.Path) -> set[tuple[str, int]]:
    """Names and numbers of the folders of saves that are not finished."""
    try:
        entries = list(os.scandir(workdir / "checkpoints"))
    except FileNotFoundError:
        return set()
    return {(entry.name, entry.inode()) for entry in entries if "tmp" in entry.name}
