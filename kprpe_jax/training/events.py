"""TensorBoard events of a run."""

import os
import time
from collections.abc import Mapping

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

_FLUSH = 30  # seconds after which TensorBoard sees new events


class EventFile:
    """TensorBoard events, written by this thread, so that a full disk is its error."""

    def __init__(self, workdir: str | os.PathLike, first_step: int):
        """Begin a file; TensorBoard forgets earlier events from `first_step` on."""
        prefix = os.path.join(workdir, "events")
        self._writer = EventsWriter(prefix, filename_suffix=f".{os.getpid()}")
        started = SessionLog(status=SessionLog.START)
        self._add(Event(step=first_step, session_log=started))
        self._flushed = time.monotonic()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics of a step; raises OSError."""
        for name, value in metrics.items():
            self._add(Event(step=step, summary=scalar(name, value)))
        if time.monotonic() - self._flushed > _FLUSH:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting; raises OSError."""
        self._writer.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Write what is waiting, and close the file; raises OSError."""
        self._writer.close()

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        self._writer.write_event(event)
