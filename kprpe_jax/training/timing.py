"""Where the time of a run goes: steps, waiting for input, saving, evaluating.

The loop hands steps to the devices and reads on; it must not wait for them to learn how
long they took. A thread of its own waits for each step's result and looks at the clock.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Iterator, Mapping

import jax

PREFIX = "timing/"  # of the metrics
STEP_SECONDS = f"{PREFIX}step_seconds"
UTILIZATION = f"{PREFIX}model_flop_utilization"
_TOTAL = f"{PREFIX}run_seconds"
_SHARES = {  # what time is spent on -> its share of the run, among the metrics
    "training": f"{PREFIX}run_productive_share",
    "waiting": f"{PREFIX}run_waiting_share",
    "saving": f"{PREFIX}run_saving_share",
    "evaluating": f"{PREFIX}run_evaluating_share",
}
_STARVING = 0.1  # share of waiting that is worth a warning
_JUDGED_SECONDS = 10.0  # of steps, before one is given


class Timer:
    """The clock of a run, over all its starts.

    Time is training while steps are done, without what the devices waited for input;
    of steps that were lost and done again only the second time. What is neither
    training, waiting, saving nor evaluating is start, compilation and lost steps.

    Attributes:
      least_step_seconds: what a step would take at the peak of the devices; 0 =
        unknown.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        devices: int,
        before: Mapping[str, float],
        training_before: float,
        began: float | None = None,
    ):
        """Begin the time of this start.

        Args:
          batch_size: images of a step, of all devices.
          devices: how many.
          before: the last metrics of the starts before (`last_times`); {} = none.
          training_before: seconds of training up to the checkpoint that goes on.
          began: `time.monotonic()` of this start; now by default.
        """
        now = time.monotonic()
        self.least_step_seconds = 0.0
        self._batch_size, self._devices = batch_size, devices
        self._total_before = before.get(_TOTAL, 0.0)
        self._began = now if began is None else began
        self._seconds = {
            kind: before.get(name, 0.0) * self._total_before
            for kind, name in _SHARES.items()
        }
        self._seconds["training"] = training_before
        self._done = _Done()
        self._warned, self._judged = False, [0.0, 0.0]  # seconds: all, waiting
        self._forget()
        self.restart()

    @property
    def training_seconds(self) -> float:
        """Of the whole run, up to the last `settle`."""
        return self._seconds["training"]

    def restart(self) -> None:
        """Steps begin now; what was since the last `settle` belongs to no kind."""
        self._mark = time.monotonic()
        self._dispatched: list[float] = []
        self._reads: list[tuple[float, float]] = []

    def dispatched(self, result: jax.Array) -> None:
        """The devices were given a step, whose result this will be."""
        self._dispatched.append(time.monotonic())
        self._done.watch(result)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """The time of reading the batch of the next step."""
        began = time.monotonic()
        yield
        self._reads.append((began, time.monotonic()))

    @contextlib.contextmanager
    def spending(self, kind: str) -> Iterator[None]:
        """The time of "saving" or "evaluating", between steps."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._seconds[kind] += time.monotonic() - began
            self.restart()

    def settle(self) -> None:
        """Account for the steps since the last time, which the devices have done."""
        done = self._done.take()
        now = time.monotonic()
        # The devices begin a step when it and the step before are there. Until then
        # they wait: for input, as long as it is being read.
        waited = sum(
            max(end - max(began, before), 0.0)
            for (began, end), before in zip(self._reads, done, strict=False)
        )
        waited = min(waited, now - self._mark)
        starts = map(max, self._dispatched, [self._mark, *done])
        self._busy += sum(end - start for start, end in zip(starts, done, strict=True))
        self._read += sum(end - began for began, end in self._reads)
        self._batches += len(self._reads)
        self._steps += len(done)
        self._elapsed += now - self._mark
        self._waited += waited
        self._seconds["training"] += now - self._mark - waited
        self._seconds["waiting"] += waited
        self.restart()

    def interval(self) -> dict[str, float]:
        """Metrics of the steps since the last call, and of the run; `settle` before."""
        seconds = max(self._elapsed / max(self._steps, 1), 1e-9)
        speed = self._batch_size / seconds
        metrics = {
            "images_per_second": speed,
            STEP_SECONDS: seconds,
            f"{PREFIX}images_per_second_per_device": speed / self._devices,
            f"{PREFIX}device_images_per_second": self._rate(self._steps, self._busy),
            f"{PREFIX}waiting_share": self._waited / max(self._elapsed, 1e-9),
        }
        if self._batches:
            rate = self._rate(self._batches, self._read)
            metrics[f"{PREFIX}input_images_per_second"] = rate
        if self.least_step_seconds:
            share = self.least_step_seconds / seconds
            metrics[UTILIZATION] = share
        total = self._total()
        metrics[_TOTAL] = total
        metrics |= {name: self._seconds[kind] / total for kind, name in _SHARES.items()}
        self._judge(metrics)
        self._forget()
        return metrics

    def warning(self) -> str:
        """Say, once, that the devices starve; "" = they don't, or it was said."""
        elapsed, waited = self._judged
        if self._warned or elapsed < _JUDGED_SECONDS:
            return ""
        self._judged = [0.0, 0.0]
        if waited < _STARVING * elapsed:
            return ""
        self._warned = True
        return (
            f"warning: the devices wait for input {waited / elapsed:.0%} of the time: "
            f"it delivers {self._rates[0]:.0f} images/s, they take {self._rates[1]:.0f}"
            "; raise config.data.num_workers (reading processes) or data.num_threads"
        )

    def summary(self) -> str:
        """What the whole run's time was spent on, for people."""
        total = self._total()
        told = [
            f"{self._seconds[kind] / total:.1%} {text}"
            for kind, text in (
                ("training", "training"),
                ("waiting", "waiting for input"),
                ("saving", "saving"),
                ("evaluating", "evaluating"),
            )
        ]
        rest = max(1 - sum(self._seconds.values()) / total, 0.0)
        return (
            f"time: {clock(total)}: {', '.join(told)}, {rest:.1%} starting and "
            "steps that were lost"
        )

    def close(self) -> None:
        """End the thread."""
        self._done.close()

    def _judge(self, metrics: Mapping[str, float]) -> None:
        self._judged[0] += self._elapsed
        self._judged[1] += self._waited
        if self._batches:
            self._rates = (
                metrics[f"{PREFIX}input_images_per_second"],
                metrics[f"{PREFIX}device_images_per_second"],
            )

    def _rate(self, batches: int, seconds: float) -> float:
        return batches * self._batch_size / max(seconds, 1e-9)

    def _total(self) -> float:
        return max(self._total_before + time.monotonic() - self._began, 1e-9)

    def _forget(self) -> None:
        """Begin a new interval."""
        self._steps = self._batches = 0
        self._elapsed = self._waited = self._busy = self._read = 0.0


def last_times(rows: list[Mapping[str, float]]) -> dict[str, float]:
    """The last metrics of a run's whole time; {} where it has none.

    Args:
      rows: of metrics.jsonl, also those of steps that will be done again: their time
        was spent.
    """
    return next((dict(row) for row in reversed(rows) if _TOTAL in row), {})


class _Done:
    """When arrays were there, seen by a thread of its own."""

    def __init__(self):
        self._queue: queue.Queue[jax.Array | None] = queue.Queue()
        self._times: list[float] = []
        threading.Thread(target=self._watch, name="step times", daemon=True).start()

    def watch(self, array: jax.Array) -> None:
        """Watch for an array, after those before."""
        self._queue.put(array)

    def take(self) -> list[float]:
        """Wait for the arrays; give the times since the last call, in order."""
        self._queue.join()
        times, self._times = self._times, []
        return times

    def close(self) -> None:
        """End the thread when it comes to it."""
        self._queue.put(None)

    def _watch(self) -> None:
        while (array := self._queue.get()) is not None:
            with contextlib.suppress(Exception):  # the loop meets the same error
                array.block_until_ready()
            del array
            self._times.append(time.monotonic())
            self._queue.task_done()


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
