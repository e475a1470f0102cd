"""Damage a data file while it is trained on: the row is named; mended, it goes on."""

import os
import pathlib
import random
import re
import subprocess
import sys
import time
from typing import Any

import numpy as np

from kprpe_jax.data.prepare import prepare
from kprpe_jax.training.checkpoint import restore_arrays
from kprpe_jax.training.runs import read_config
from kprpe_jax.training.sharding import flatten_with_paths
from tests.chaos.training import cached
from tests.tasks import tiny
from tests.training.processes import metrics

_STEPS = 40  # of 64 of the 1,437 digits: each is read at least once
_NAMED = r"(\S+) is corrupt at row (\d+) of the split|(\S+) is truncated or corrupt"


def damage_often(
    folder: pathlib.Path, *, trials: int, seed: int, say: Any
) -> dict[str, Any]:
    """Train on digits whose file is damaged half-way, at a new place each time.

    The first half of the trials damages it while the training runs, the other half
    between a kill and the next start.

    Returns: what happened, in numbers; `differences` must be empty.
    """
    rng = random.Random(seed)
    data = folder / "data"
    shard = next(pathlib.Path(prepare("digits", data)).glob("*train*array_record*"))
    whole = shard.read_bytes()
    _finish(_start(folder, "straight"))
    found: dict[str, Any] = {"trials": trials, "named": 0, "unread": 0, "messages": []}
    wrong = []
    for trial in range(trials):
        name = f"run_{trial}"
        process = _start(folder, name)
        _wait_for_step(folder / name, rng.randint(2, 12), process)
        if trial % 2:
            process.kill()
            process.wait()
        place = rng.randrange(len(whole) // 4, len(whole) - 64)
        with shard.open("r+b") as file:  # in place, as a bad disk does it
            file.seek(place)
            file.write(random.Random(place).randbytes(16))
        if trial % 2:
            process = _start(folder, name)
        code, err = _finish(process)
        if code:
            told = re.search(_NAMED, err)
            last = err.strip().splitlines()[-1]
            if code == 2 and told and shard.name in err and "Trace" not in err:
                found["named"] += 1
                found["messages"].append(last.replace(str(data), "DATA")[:300])
            else:
                wrong.append(f"trial {trial}: exit code {code}: {err[-800:]}")
        else:
            found["unread"] += 1
        with shard.open("r+b") as file:
            file.write(whole)
        code, err = _finish(_start(folder, name))
        if code:
            wrong.append(f"trial {trial}: mended, exit code {code}: {err[-500:]}")
        elif _end(folder / name) != _end(folder / "straight"):
            wrong.append(f"trial {trial}: other bits than the straight run")
        say(f"trial {trial}: {found['named']} named, {len(wrong)} differences")
    found["messages"] = found["messages"][:3]
    return {**found, "differences": wrong}


def _start(folder: pathlib.Path, name: str) -> subprocess.Popen:
    fields = {"data.dir": str(folder / "data"), "steps": _STEPS}
    fields |= {"data.batch_size": 64, "checkpoint.every_steps": 1}
    fields = tiny.SMALL | fields
    given = [f"--config.{field}={value}" for field, value in fields.items()]
    command = [sys.executable, "train.py", "--config=configs/digits.py"]
    return subprocess.Popen(
        [*command, f"--workdir={folder / name}", *given],
        env=os.environ | cached(folder),
        stdout=subprocess.DEVNULL,
        stderr=(folder / f"{name}.err").open("w"),
    )


def _finish(process: subprocess.Popen) -> tuple[int, str]:
    """Exit code, and what the process said on stderr."""
    process.wait(timeout=600)
    (workdir,) = (x for x in process.args if x.startswith("--workdir="))
    return process.returncode, pathlib.Path(workdir[10:] + ".err").read_text()


def _wait_for_step(workdir: pathlib.Path, step: int, process: subprocess.Popen) -> None:
    path = workdir / "metrics.jsonl"
    while not (path.exists() and f'{{"step": {step},' in path.read_text()):
        if process.poll() is not None:
            raise RuntimeError(_finish(process)[1])
        time.sleep(0.005)


def _end(workdir: pathlib.Path) -> tuple[dict[str, bytes], list[dict]]:
    """The bits of the last checkpoint's network, and the losses of all steps."""
    config = read_config(workdir)
    step, params, collections = restore_arrays(workdir, "last", config, lambda _: True)
    arrays = flatten_with_paths({"params": params, "collections": collections})
    bits = {path: np.asarray(x).tobytes() for path, x in arrays.items()}
    return {"step": str(step).encode(), **bits}, metrics(workdir)
