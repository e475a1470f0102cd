"""One training at a time in a folder: two would overwrite each other's checkpoints."""

import contextlib
import errno
import fcntl
import os
import pathlib
from collections.abc import Callable, Iterator

from kprpe_jax.core.paths import is_bucket
from kprpe_jax.training.bucket_owner import own_bucket_folder

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


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
    with open(folder / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"train: {folder} must be of this run alone; got a folder in which "
                "another training runs; wait for it, or give another workdir."
            ) from None
        except OSError as e:
            if e.errno not in _NO_LOCKS:
                raise
        yield lambda: None
