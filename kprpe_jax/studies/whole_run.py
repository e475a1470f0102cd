"""The trainings of a study: each to its end, or the study stops with it."""

import os

from ml_collections import ConfigDict

from kprpe_jax.training import loop


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
