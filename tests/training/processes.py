"""Trainings of the toy as processes of their own, and what they leave behind."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import jax

from kprpe_jax.core import mesh as mesh_lib
from kprpe_jax.training.checkpoint import Checkpoints
from kprpe_jax.training.optimizer import make_optimizer
from kprpe_jax.training.state import abstract_state
from tests.ports import free_address
from tests.training import toy

ROOT = pathlib.Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "tests.training.run_toy"]


def start(workdir, *arguments, devices=2, **environ):
    """Start train.py on the toy."""
    arguments = [f"--config={toy.__file__}", f"--workdir={workdir}", *arguments]
    return start_command(*arguments, devices=devices, **environ)


def start_command(*arguments, devices=2, **environ):
    """Start a command on the toy; its output goes to files, which never fill up."""
    environ = {
        **{k: v for k, v in os.environ.items() if k != "XLA_FLAGS"},
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        **environ,
    }
    command = [*COMMAND, *arguments]
    out, err = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")
    process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=out, stderr=err)
    process.files = out, err
    return process


def start_two(workdir, *arguments, **environ):
    """Start a training of two processes."""
    return [
        start(workdir, *arguments, *of_two, **environ) for of_two in two_processes()
    ]


def two_processes():
    """The options of two processes that find each other."""
    address = free_address()
    shared = [f"--coordinator={address}", "--num-processes=2"]
    return [[*shared, f"--process-id={i}"] for i in range(2)]


def finish(process, timeout=240):
    """Wait; give the exit code, stdout and stderr."""
    process.wait(timeout=timeout)
    texts = []
    for file in process.files:
        file.seek(0)
        texts.append(file.read())
        file.close()
    return process.returncode, *texts


def wait_for_step(workdir, step, process):
    """Wait until a step is in the metrics."""
    path = workdir / "metrics.jsonl"
    deadline = time.time() + 120
    while not (path.exists() and f'{{"step": {step},' in path.read_text()):
        assert process.poll() is None, finish(process)
        assert time.time() < deadline
        time.sleep(0.01)


def last_state(workdir):
    """Give the last step and its whole state on the host."""
    states = all_states(workdir, last=1)
    return states.popitem()


def all_states(workdir, *, last=None):
    """The whole states of the last checkpoints, or of all: step -> host arrays."""
    mesh = mesh_lib.make_mesh({"data": 1, "fsdp": 1, "class": 1}, jax.devices()[:1])
    transformation = make_optimizer(toy.make_config().optimizer, steps=20)[0]
    abstract = abstract_state(toy.make_task(), mesh, transformation)
    found = {}
    with contextlib.closing(Checkpoints(workdir)) as checkpoints:
        steps = checkpoints.steps
        for step in steps if last is None else steps[-last:]:
            state = checkpoints.restore(step, abstract)
            state = state.replace(rng=jax.random.key_data(state.rng))
            found[step] = jax.device_get(state)
    return found


def metrics(workdir):
    """The rows of metrics.jsonl, without times and memory."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    other = ("images_per_second", "timing/", "memory/")
    return [{k: v for k, v in r.items() if not k.startswith(other)} for r in rows]


def losses(workdir):
    """Step -> loss."""
    return {row["step"]: row["loss"] for row in metrics(workdir) if "loss" in row}
