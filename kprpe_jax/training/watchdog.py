"""Ends a process whose training steps stop, so that nothing hangs for ever."""

import faulthandler
import sys


class Watchdog:
    """Writes the Python stacks of all threads to stderr and ends the process, status 1.

    A host that waits for one that is gone waits in a collective, where no exception
    reaches it; every process has its own watchdog. The last checkpoint stays.

    Args:
      minutes: without a step after which it acts; 0 = never.
    """

    def __init__(self, minutes: float):
        self._seconds = 60 * minutes

    def step(self) -> None:
        """Count a step: the time begins anew."""
        if self._seconds:
            stderr = sys.__stderr__ or sys.stderr  # one with a file descriptor
            faulthandler.dump_traceback_later(self._seconds, exit=True, file=stderr)

    def pause(self) -> None:
        """Stop the time until the next step: an evaluation or a save takes its own."""
        if self._seconds:
            faulthandler.cancel_dump_traceback_later()
