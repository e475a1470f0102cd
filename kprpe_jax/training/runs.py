"""A run on disk: its folder, its config, a checkpoint of it."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

_ORIGIN = "origin.json"


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


def save_origin(workdir: str | os.PathLike, origin: Mapping[str, Any]) -> None:
    """Write the facts about a run's data (`Task.origin`) beside its config."""
    if origin:
        path = pathlib.Path(workdir) / _ORIGIN
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(dict(origin)) + "\n", "utf-8")
        partial.replace(path)


def read_origin(workdir: str | os.PathLike) -> dict[str, Any]:
    """Read the facts about a run's data; {} where it keeps none.

    Raises: ValueError: a damaged file.
    """
    path = pathlib.Path(workdir) / _ORIGIN
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as e:
        raise ValueError(
            f"{path} must hold what train.py wrote about the data; got a damaged file; "
            "delete it and continue the run once"
        ) from e


def check_origin(workdir: str | os.PathLike, origin: Mapping[str, Any]) -> None:
    """Raise ValueError where a run began on data with other facts."""
    stored, wanted = read_origin(workdir), json.loads(json.dumps(dict(origin)))
    changed = [name for name in stored if stored[name] != wanted.get(name)]
    if changed:
        raise ValueError(
            f"workdir: the run in {workdir} began on other data: their "
            f"{', '.join(changed)} differ; give the data of the run, or take another "
            "--workdir"
        )


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
