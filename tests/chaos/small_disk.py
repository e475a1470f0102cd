"""A file system of a few megabytes, in mounts that only one process sees."""

import contextlib
import importlib
import json
import os
import pathlib
import random
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

_SIZE = 64 << 20  # bytes
_PARTS = {
    "training": "tests.chaos.small_disk:train",
    "enrollment": "tests.chaos.enrollment:enroll_on_small_disk",
    "read_only": "tests.chaos.enrollment:enroll_read_only",
}


def in_own_mounts(
    part: str, folder: pathlib.Path, trials: int, seed: int
) -> dict[str, Any]:
    """Run a part of _PARTS in a mount namespace, where it may mount what it likes.

    Returns: what happened; {"not run": why} where the system allows no such namespace.
    """
    allowed = subprocess.run(["unshare", "-rm", "true"], capture_output=True)
    if allowed.returncode:
        return {"not run": allowed.stderr.decode().strip()}
    command = ["unshare", "-rm", sys.executable, "-m", "tests.chaos.small_disk"]
    done = subprocess.run(
        [*command, part, str(folder), str(trials), str(seed)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


@contextlib.contextmanager
def small_disk(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Mount a tmpfs of 64 MiB."""
    disk = folder / "disk"
    disk.mkdir(exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", disk)
    try:
        yield disk
    finally:
        _run("umount", disk)


@contextlib.contextmanager
def read_only(folder: pathlib.Path) -> Iterator[None]:
    """Mount a folder over itself, so that nobody writes there, not even root."""
    _run("mount", "--bind", folder, folder)
    try:
        _run("mount", "-o", "remount,ro,bind", folder)
        yield
    finally:
        _run("umount", folder)


def fill(disk: pathlib.Path, free: int) -> pathlib.Path:
    """Write a file that leaves so many bytes free."""
    status = os.statvfs(disk)
    filler = disk / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(
            file.fileno(), 0, status.f_bavail * status.f_frsize - max(free, 4096)
        )
    return filler


def bytes_of(folder: pathlib.Path) -> int:
    """Bytes of all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def train(folder: pathlib.Path, trials: int, seed: int) -> dict[str, Any]:
    """Train where the disk fills up; then free space and train on."""
    from tests.chaos.training import ARGUMENTS, cached, differences, run_straight
    from tests.training.processes import finish, start

    rng, environ = random.Random(seed), cached(folder)
    run_straight(folder / "straight", 1, environ)
    whole = bytes_of(folder / "straight")
    found: dict[str, Any] = {"trials": trials, "filled up": 0, "messages": []}
    wrong = []
    for trial in range(trials):
        with small_disk(folder) as disk:
            filler = fill(disk, int(rng.uniform(0, 1.1) * whole))
            workdir = disk / "run"
            code, _, err = finish(start(workdir, *ARGUMENTS, **environ))
            if code:
                found["filled up"] += 1
                wrong += [f"trial {trial}: {x}" for x in not_one_sentence(code, err)]
                message = err.strip().splitlines()[-1][-300:]
                found["messages"].append(message.replace(str(disk), "DISK"))
            filler.unlink()
            code, _, err = finish(start(workdir, *ARGUMENTS, **environ))
            if code:
                wrong.append(f"trial {trial}: then exit code {code}: {err[-500:]}")
            else:
                other = differences(folder / "straight", workdir)
                wrong += [f"trial {trial}: {x}" for x in other]
    found["messages"] = sorted(set(found["messages"]))
    return {**found, "differences": wrong}


def not_one_sentence(code: int, err: str) -> list[str]:
    """What is wrong with how a command told that its disk is full."""
    last = err.strip().splitlines()[-1]
    full = any(word in last for word in ("space", "full", "Read-only", "readonly"))
    if code in (1, 2) and last.startswith("error: ") and full and "Trace" not in err:
        return []
    return [f"exit code {code} and {err.strip()[-1500:]}"]


def _run(*command: str | pathlib.Path) -> None:
    subprocess.run([*map(str, command)], check=True, capture_output=True)


if __name__ == "__main__":
    name, place, count, number = sys.argv[1:]
    module, _, function = _PARTS[name].partition(":")
    part_of = getattr(importlib.import_module(module), function)
    result = part_of(pathlib.Path(place), int(count), int(number))
    sys.stdout.write(json.dumps(result) + "\n")
