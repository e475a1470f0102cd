"""Traces of training steps, for xprof and TensorBoard."""

import os
import pathlib
import socket
import tempfile
from typing import Any

import jax
from ml_collections import ConfigDict

from kprpe_jax.core.paths import as_path, is_bucket, write_bytes

_TRACER = "config.profile"


class Profile:
    """Traces a run's steps profile.start to profile.start + profile.steps - 1.

    The first process writes its devices' part to plugins/profile in the run's folder,
    where TensorBoard looks for it. At the last of the steps the host waits once for the
    devices.
    """

    def __init__(
        self, config: ConfigDict, workdir: str | os.PathLike, *, done: int, last: int
    ):
        """Choose the steps.

        Args:
          config: the section `profile`; may be empty.
          workdir: of the run.
          done: steps before this start.
          last: step of the run.
        """
        self._workdir = os.fspath(workdir)
        self._first, count = config.get("start", 10), config.get("steps", 0)
        self._last = min(self._first + count - 1, last)
        self._running = False
        self.line = ""
        if not count:
            self._first = None
        elif self._first <= done or self._first > last:
            self.line = (
                f"{_TRACER}: no step is traced: profile.start is {self._first}, and "
                f"this start has the steps {done + 1} to {last}"
            )
            self._first = None

    def before(self, step: int) -> None:
        """Begin with this step, if it is the first to trace."""
        if step == self._first and jax.process_index() == 0:
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # it would slow the host down
            self._folder = tempfile.TemporaryDirectory(prefix="kprpe_jax-")
            target = self._folder.name if is_bucket(self._workdir) else self._workdir
            jax.profiler.start_trace(target, profiler_options=options)
            self._running = True

    def after(self, step: int, result: Any) -> str:
        """End with this step, if it is the last to trace; say so, else ""."""
        if not self._running or step != self._last:
            return ""
        jax.block_until_ready(result)
        self.close()
        return (
            f"{_TRACER}: steps {self._first} to {self._last} are in "
            f"{os.path.join(self._workdir, 'plugins', 'profile')}"
        )

    def close(self) -> None:
        """Write what was traced, if the run ends in between."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
            with self._folder as folder:  # empty, unless for a bucket
                for file in pathlib.Path(folder).rglob("*.*"):
                    target = as_path(self._workdir) / file.relative_to(folder)
                    write_bytes(target, file.read_bytes())


def serve_profiles(port: int) -> None:
    """Let xprof and TensorBoard capture traces of this process from a port.

    Raises: ValueError: another process has the port.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except (OSError, OverflowError) as error:
            raise ValueError(
                f"--profile-server {port}: must be a free port of this host, below "
                f"65536; got one that cannot be opened ({error}); take another"
            ) from None
    jax.profiler.start_server(port)
