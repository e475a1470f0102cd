"""Files that grow while a run goes on, in a bucket, where no file can grow."""

import os
import pathlib
import tempfile
import time

from kprpe_jax.core.paths import (
    PATIENCE_SECONDS,
    as_path,
    bucket_errors,
    is_bucket,
    write_bytes,
)

_SECONDS = 30.0  # between copies, at least
_SHARE = 50  # of the time, that copying may take: one in so many


class Mirror:
    """A folder to write in, whose files are copied to a bucket whole, now and then.

    Of a local folder it is that folder itself, and copies nothing.
    """

    def __init__(self, target: str | os.PathLike, *names: str):
        """Open it, with the files `names` of the bucket, where they are there."""
        self._target = as_path(target)
        self._temporary = None
        self._patience = PATIENCE_SECONDS
        self._sizes: dict[str, int] = {}  # of the copies
        self._next = time.monotonic() + _SECONDS
        self.folder = pathlib.Path(target)
        if not is_bucket(target):
            return
        self._temporary = tempfile.TemporaryDirectory(prefix="kprpe_jax-")
        self.folder = pathlib.Path(self._temporary.name)
        with bucket_errors(target):
            for name in names:
                if (self._target / name).exists():
                    content = (self._target / name).read_bytes()
                    (self.folder / name).write_bytes(content)

    @property
    def is_due(self) -> bool:
        """Whether it is time to copy."""
        return self._temporary is not None and time.monotonic() > self._next

    def copy(self) -> None:
        """Copy the files that have grown; raises OSError."""
        # Once it was too long: an end that waits again tells nobody more.
        patience, self._patience = self._patience, 0.0
        self._copy(patience)
        self._patience = patience

    def _copy(self, patience: float) -> None:
        if self._temporary is None:
            return
        began = time.monotonic()
        for file in sorted(self.folder.iterdir()):
            content = file.read_bytes()
            if self._sizes.get(file.name) != len(content):
                write_bytes(self._target / file.name, content, patience=patience)
                self._sizes[file.name] = len(content)
        now = time.monotonic()
        self._next = now + max(_SECONDS, _SHARE * (now - began))

    def close(self) -> None:
        """Copy the last, and remove what is local; raises OSError."""
        try:
            self.copy()
        finally:
            if self._temporary is not None:
                self._temporary.cleanup()
