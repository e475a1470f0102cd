"""A run on disk: its folder, its config, a checkpoint of it."""

import json
import os
import pathlib
from typing import NamedTuple

from ml_collections import ConfigDict


class RunSpec(NamedTuple):
    """A run's folder and one of its checkpoints, written FOLDER or FOLDER@CHECKPOINT.

    Attributes:
      workdir: the folder.
      checkpoint: "best", "last" or a step.
    """

    workdir: pathlib.Path
    checkpoint: str

    def __str__(self) -> str:
        """FOLDER@CHECKPOINT."""
        return f"{self.workdir}@{self.checkpoint}"


def parse_run(spec: str) -> RunSpec | None:
    """Read FOLDER[@CHECKPOINT]; None where FOLDER is not the folder of a run."""
    for text, checkpoint in ((spec, "best"), spec.rpartition("@")[::2]):
        if text and (pathlib.Path(text) / "config.json").is_file():
            return RunSpec(pathlib.Path(text), checkpoint or "best")
    return None


def read_config(workdir: str | os.PathLike) -> ConfigDict:
    """Read the config that a run was started with, overrides included.

    Raises: ValueError: no run's folder, or a damaged config.
    """
    path = pathlib.Path(workdir) / "config.json"
    try:
        config = ConfigDict(json.loads(path.read_text("utf-8")))
        config.task  # noqa: B018
    except (OSError, ValueError, TypeError, AttributeError) as e:
        raise ValueError(
            f"{workdir} must be the folder of a run, with its config.json; got another "
            "folder; name what train.py --workdir wrote."
        ) from e
    return config
