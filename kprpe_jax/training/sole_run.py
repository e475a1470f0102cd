"""One training at a time in a folder: two would overwrite each other's checkpoints."""

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Callable, Iterator

from kprpe_jax.core.paths import is_bucket
from kprpe_jax.training.bucket_owner import own_bucket_folder
from kprpe_jax.training.rows import NO_LOCKS


@contextlib.contextmanager
def sole_run(workdir: str | os.PathLike) -> Iterator[Callable[[], None]]:
    """Hold a folder's `lock` file, which the system frees however the process ends.

    Makes the folder if it is missing. On a file system without locks nothing is held.
    In a bucket `own_bucket_folder` stands in.

    Yields: a function to call before a save; it raises ValueError where the folder has
      another owner by now, which only in a bucket can happen.
    Raises: ValueError: another process holds it.
    """
    if is_bucket(workdir):
        with own_bucket_folder(workdir) as check:
            yield check
        return
    folder = pathlib.Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    refusal = (
        f"train: {folder} must be of this run alone; got a folder in which another "
        "training runs; wait for it, or give another workdir."
    )
    with _hold(folder / "lock", refusal):
        yield lambda: None


@contextlib.contextmanager
def sole_follower(workdir: str | os.PathLike) -> Iterator[None]:
    """Hold a run's `follow.lock` file, as `sole_run`.

    Raises: ValueError: another process holds it.
    """
    folder = pathlib.Path(workdir)
    refusal = (
        f"eval --follow: {folder} must have one follower; got a run that another "
        "process follows; leave it to that one, or stop it."
    )
    with _hold(folder / "follow.lock", refusal):
        yield


@contextlib.contextmanager
def _hold(path: pathlib.Path, refusal: str) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(refusal) from None
        except OSError as e:
            if e.errno not in NO_LOCKS:
                raise
        yield lambda: None
