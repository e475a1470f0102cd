"""Runs of an experiment: each is trained to its end and measured once."""

import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from ml_collections import ConfigDict

from kprpe_jax.commands.main import RunError
from kprpe_jax.training import loop
from kprpe_jax.training import runs as run_lib

# Not `eval.json`, which eval.py writes of the checkpoint that it is asked for.
RESULTS = "study.json"


class StoppedError(RunError):
    """A run was stopped before its end, and with it the experiment."""


def train_to_the_end(config: ConfigDict, workdir: str | os.PathLike) -> None:
    """Train, or go on where an earlier study was stopped.

    Raises: StoppedError: SIGTERM ended the training; its checkpoint is kept.
      ValueError: as `loop.train`.
    """
    step = int(loop.train(config, workdir)["step"])
    if step < config.steps:
        raise StoppedError(
            f"{os.fspath(workdir)}: stopped after step {step} of {config.steps}; start "
            "the experiment again to continue"
        )


def train_and_measure(
    config: ConfigDict,
    workdir: pathlib.Path,
    measure: Callable[[], dict[str, Any]],
    *,
    name: str = RESULTS,
) -> dict[str, Any]:
    """Train to the end and measure, or read what an earlier study measured.

    Args:
      config: of the run; that of the earlier study, its evaluation included.
      workdir: of the run.
      measure: called after the training; gives JSON values.
      name: of the file in `workdir` that keeps them.
    Returns: the values, as JSON gives them back.
    Raises: StoppedError: as `train_to_the_end`. ValueError: `workdir` holds a run of
      another config; as `loop.train`.
    """
    run_lib.check_workdir(config, workdir)
    finished = workdir / name
    if not finished.exists():
        train_to_the_end(config, workdir)
        write_whole(finished, measure())
    return json.loads(finished.read_text())


def write_whole(file: pathlib.Path, values: dict[str, Any]) -> None:
    """Write JSON in one move: a killed study leaves no half of a file."""
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(values, indent=2) + "\n")
    partial.replace(file)


def check_different(study: str, flag: str, values: Sequence[Any]) -> None:
    """Check that no run is named twice: it would count twice in means and deviations.

    Raises: ValueError: two values are the same.
    """
    if len(set(values)) < len(values):
        raise ValueError(
            f"{study}: --{flag} must name each only once; got "
            f"{','.join(map(str, values))}"
        )
