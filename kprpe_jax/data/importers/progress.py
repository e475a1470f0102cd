"""The state of a stopped import, from which the next one goes on.

data_dir/name/incomplete.import/progress/import.json   what is imported
data_dir/name/incomplete.import/progress/00000.json    shard 0 is finished
data_dir/name/incomplete.import/data/                  becomes data_dir/name/1.0.0/
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from kprpe_jax.data.importers.report import Shard

REPORT = "import_report.json"


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
    """Hold a data set's folder for this process; the lock goes with it.

    The folder is made if absent, and removed at the end if empty.

    Raises: ValueError: another process holds it.
    """
    os.makedirs(folder, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise ValueError(
                f"import: one process at a time must write {folder}; got another "
                "one at work; wait for it"
            ) from e
        yield
    finally:
        os.close(handle)
        with contextlib.suppress(OSError):
            os.rmdir(folder)


@contextlib.contextmanager
def kept_if_useful(folder: str) -> Iterator[str]:
    """Give the work folder, and keep it at the end only to go on from it.

    Raises: ValueError: the disk is full or fails, in one sentence.
    """
    work = os.path.join(folder, "incomplete.import")
    try:
        yield work
    except (OSError, RuntimeError) as e:  # ArrayRecord raises RuntimeError
        reason = str(e).split("\n")[0].split(";")[0]
        raise ValueError(
            f"import: the source must be readable and {work} have room; got "
            f"{reason!r}; free space and run the same command again"
        ) from e
    finally:
        data = os.path.join(work, "data")
        has_rows = os.path.isdir(data) and os.listdir(data)
        if not (has_rows and os.path.exists(_shard_path(work, 0))):
            shutil.rmtree(work, ignore_errors=True)


def finished_report(final: str, origin: Mapping[str, Any]) -> dict[str, Any]:
    """Read the report of a finished import of the same source.

    Raises: ValueError: the folder is not such a one.
    """
    report = {}
    with contextlib.suppress(OSError, ValueError):
        report = _read_json(os.path.join(final, REPORT))
    if report.get("origin") != origin:
        raise ValueError(
            f"import: {final} must not exist yet or come from the same source "
            f"and options; got one from {report.get('origin', 'elsewhere')}; choose "
            "another name or delete the folder"
        )
    return report


_NOT_IN_SHARDS = {"pairs", "pairs_state"}  # another list of pairs may be tried


def finished_shards(work: str, origin: Mapping[str, Any]) -> list[Shard]:
    """Read what a stopped import has finished, or make the folders for a new one.

    Raises: ValueError: it was of another source, or had other options.
    """
    started = os.path.join(work, "progress", "import.json")
    if not os.path.exists(started):
        for part in ("data", "progress"):
            os.makedirs(os.path.join(work, part), exist_ok=True)
        write_json(started, origin)
    before = _read_json(started)
    changed = {k for k in before | origin if before.get(k) != origin.get(k)}
    changed = sorted(changed - _NOT_IN_SHARDS)
    if changed:
        raise ValueError(
            f"import: {work} must be a stopped import of the same source with "
            f"the same options; got another {', '.join(changed)}; delete that folder "
            "to begin again"
        )
    shards: list[Shard] = []
    while os.path.exists(path := _shard_path(work, len(shards))):
        shards.append(Shard(**_read_json(path)))
    return shards


def add_shard(work: str, number: int, shard: Shard) -> None:
    """Note that a shard's file is whole."""
    write_json(_shard_path(work, number), vars(shard))


def write_json(path: str, value: Mapping[str, Any]) -> None:
    """Write a file that is there whole or not at all."""
    with open(path + ".tmp", "w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".tmp", path)


def _read_json(path: str) -> dict[str, Any]:
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def _shard_path(work: str, number: int) -> str:
    return os.path.join(work, "progress", f"{number:05d}.json")
