"""Runs of a study: each trained to its end and measured once, or the study stops."""

import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from ml_collections import ConfigDict

from kprpe_jax.training import config as config_lib
from kprpe_jax.training import loop

# Not `eval.json`, which eval.py writes of the checkpoint that it is asked for.
RESULTS = "study.json"


class Stopped(RuntimeError):
    """A run was asked to stop before its end, and so is the study."""


def train_to_the_end(config: ConfigDict, workdir: str | os.PathLike) -> None:
    """Train, or go on where an earlier study was stopped.

    Raises: Stopped: SIGTERM ended the training; its checkpoint is kept. ValueError: as
      `loop.train`.
    """
    step = int(loop.train(config, workdir)["step"])
    if step < config.steps:
        raise Stopped(
            f"{os.fspath(workdir)}: stopped after step {step} of {config.steps}; start "
            "the study again to go on"
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
    Raises: Stopped: as `train_to_the_end`. ValueError: `workdir` holds a run of another
      config; as `loop.train`.
    """
    config_lib.check_workdir(config, workdir)
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


def whole_numbers(study: str, flag: str, values: Sequence[str]) -> list[int]:
    """Read the numbers of a flag.

    Raises: ValueError: something else than digits.
    """
    if not all(value.isdecimal() for value in values):
        raise ValueError(
            f"{study}: --{flag} must be whole numbers, such as 0,1,2; got "
            f"{','.join(values)}"
        )
    return [int(value) for value in values]


def check_different(study: str, flag: str, values: Sequence[Any]) -> None:
    """Check that no run is named twice: it would count twice in means and deviations.

    Raises: ValueError: two values are the same.
    """
    if len(set(values)) < len(values):
        raise ValueError(
            f"{study}: --{flag} must name each only once; got "
            f"{','.join(map(str, values))}"
        )
