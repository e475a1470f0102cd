"""One training at a time in a folder of a bucket, where no system holds a lock.

The object `lock` says whose the folder is. Its owner writes a rising number into it
every BEAT_SECONDS. Who finds one watches it: where the number rises another training
runs, where it stands still for WATCH_SECONDS its owner is gone. No two clocks are
compared. An owner that was killed is known at once by who starts on the same machine.
"""

import contextlib
import functools
import json
import logging
import os
import pathlib
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from kprpe_jax.core.paths import (
    as_path,
    bucket_errors,
    file_system,
    write_bytes,
)

_LOG = logging.getLogger(__name__)
BEAT_SECONDS = 10.0
WATCH_SECONDS = 45.0


@contextlib.contextmanager
def own_bucket_folder(workdir: str | os.PathLike) -> Iterator[Callable[[], None]]:
    """Be the only training in a folder of a bucket.

    Args:
      workdir: the folder, gs://... or s3://...
    Yields: a function that raises ValueError where another training has taken the
      folder over, as it may while this one's bucket does not answer.
    Raises: ValueError: another training runs there.
    """
    path = f"{os.fspath(workdir).rstrip('/')}/lock"
    with bucket_errors(path):
        found = _read(path)
        if found is not None:
            _wait_for_its_end(path, found, workdir)
        me = {"id": uuid.uuid4().hex, "pid": os.getpid(), "place": _place(), "beat": 0}
        try:
            # Of two that come together, the store lets one be the first.
            file_system(path).pipe_file(path, _encode(me), mode="create")
        except FileExistsError:
            raise _refusal(workdir) from None
    stop, lost, away = (threading.Event() for _ in range(3))
    beating = threading.Thread(
        target=_beat, args=(path, me, stop, lost, away), daemon=True, name="owner"
    )
    beating.start()

    def check() -> None:
        if lost.is_set():
            raise _refusal(workdir)

    try:
        yield check
    finally:
        stop.set()
        beating.join(BEAT_SECONDS)
        with contextlib.suppress(Exception):  # then it is found to stand still
            if not away.is_set() and (_read(path) or {}).get("id") == me["id"]:
                as_path(path).unlink()


def _beat(
    path: str,
    me: dict[str, Any],
    stop: threading.Event,
    lost: threading.Event,
    away: threading.Event,
) -> None:
    """Write the rising number until `stop`, or until another owner is found: `lost`.

    While the bucket does not answer, `away` is set.
    """
    while not stop.wait(BEAT_SECONDS):
        try:
            found = _read(path)
            if found is not None and found.get("id") != me["id"]:
                lost.set()
                return
            me["beat"] += 1
            write_bytes(path, _encode(me), patience=0)
            away.clear()
        except Exception:  # the training itself will find out, if it lasts
            away.set()


def _wait_for_its_end(
    path: str, found: dict[str, Any], workdir: str | os.PathLike
) -> None:
    """Return when the owner that was found is gone, with its object removed.

    Raises: ValueError: it runs.
    """
    if not _is_dead_here(found):
        _LOG.info(
            "%s is owned by another training; looks for up to %g seconds whether it "
            "still runs",
            workdir,
            WATCH_SECONDS,
        )
        until = time.monotonic() + WATCH_SECONDS
        while time.monotonic() < until:
            time.sleep(min(2.0, WATCH_SECONDS / 4))
            now = _read(path)
            if now is None:
                return
            if now != found:
                raise _refusal(workdir)
    as_path(path).unlink(missing_ok=True)


def _is_dead_here(owner: dict[str, Any]) -> bool:
    """Whether an owner was a process of this machine, and is none any more."""
    pid = owner.get("pid")
    if owner.get("place") != _place() or not isinstance(pid, int) or pid < 1:
        return False
    return not pathlib.Path("/proc", str(pid)).exists()


@functools.cache
def _place() -> str:
    """Name this machine since its start, and the space that numbers processes."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = os.readlink("/proc/self/ns/pid")
    except OSError:  # no Linux: nobody is known to be dead
        return uuid.uuid4().hex
    return f"{socket.gethostname()} {boot} {space}"


def _refusal(workdir: str | os.PathLike) -> ValueError:
    return ValueError(
        f"train: {workdir} must be of this run alone; got a folder in which another "
        "training runs; wait for it, or give another workdir."
    )


def _read(path: str) -> dict[str, Any] | None:
    """What the object says; None = there is none."""
    try:
        text = as_path(path).read_bytes()
    except FileNotFoundError:
        return None
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError):
        return {}  # of nobody known


def _encode(owner: dict[str, Any]) -> bytes:
    return json.dumps(owner).encode()
