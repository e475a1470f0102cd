import threading

import pytest

from kprpe_jax.training import timing
from kprpe_jax.training.timing import Timer, last_times


class Clock:
    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


class Result:
    """A step's result, done when it is told."""

    def __init__(self):
        self.event = threading.Event()

    def block_until_ready(self):
        assert self.event.wait(10)

    def finish(self, timer):
        self.event.set()
        timer._done._queue.join()  # the thread has looked at the clock


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


def make(**options):
    fields = dict(batch_size=12, devices=4, before={}, training_before=0.0)
    return Timer(**fields | options)


def steps(timer, clock, *, device, read, count=2):
    """Steps whose devices and input take so many seconds each."""
    for _ in range(count):
        result = Result()
        timer.dispatched(result)
        began = clock.now
        with timer.reading():
            for moment in sorted({device, read}):
                clock.now = began + moment
                if moment == device:
                    result.finish(timer)
                if moment == read:
                    break
        if device > read:
            clock.now = began + device
            result.finish(timer)
    timer.settle()


def test_devices_that_wait_for_input(clock):
    timer = make()
    timer.least_step_seconds = 0.5
    steps(timer, clock, device=1.0, read=4.0)
    found = timer.interval()
    assert found["timing/step_seconds"] == 4
    assert found["images_per_second"] == 3
    assert found["timing/images_per_second_per_device"] == 0.75
    assert found["timing/waiting_share"] == 0.75
    assert found["timing/input_images_per_second"] == 3
    assert found["timing/device_images_per_second"] == 12
    assert found["timing/model_flop_utilization"] == 0.125
    assert found["timing/run_productive_share"] == 0.25
    assert timer.warning() == ""  # too early to tell
    steps(timer, clock, device=1.0, read=4.0)
    timer.interval()
    assert "wait for input 75% of the time: it delivers 3 images/s, they take 12" in (
        timer.warning()
    )
    steps(timer, clock, device=1.0, read=4.0, count=9)
    timer.interval()
    assert timer.warning() == ""  # once


def test_input_that_waits_for_devices(clock):
    timer = make()
    steps(timer, clock, device=4.0, read=1.0, count=5)
    found = timer.interval()
    assert found["timing/waiting_share"] == 0
    assert found["timing/input_images_per_second"] == 12
    assert found["timing/device_images_per_second"] == 3
    assert "timing/model_flop_utilization" not in found
    assert timer.warning() == ""


def test_saving_and_evaluating_are_no_time_of_steps(clock):
    timer = make()
    clock.now = 10.0  # starting
    timer.restart()
    steps(timer, clock, device=2.0, read=1.0)
    for kind, seconds in (("saving", 1.0), ("evaluating", 5.0)):
        with timer.spending(kind):
            clock.now += seconds
    steps(timer, clock, device=2.0, read=1.0, count=1)
    found = timer.interval()
    assert found["timing/step_seconds"] == 2
    assert found["timing/run_seconds"] == 22
    assert found["timing/run_productive_share"] == pytest.approx(6 / 22)
    assert found["timing/run_saving_share"] == pytest.approx(1 / 22)
    assert found["timing/run_evaluating_share"] == pytest.approx(5 / 22)
    assert "0:00:22: 27.3% training, 0.0% waiting for input, 4.5%" in timer.summary()
    assert "45.5% starting and steps that were lost" in timer.summary()


def test_a_second_start_counts_lost_steps_as_lost(clock):
    first = make()
    steps(first, clock, device=2.0, read=1.0, count=5)
    saved = first.training_seconds
    steps(first, clock, device=2.0, read=1.0, count=5)  # then it is killed
    rows = [{"step": 10, "loss": 1.0, **first.interval()}, {"step": 10, "a/b": 1.0}]
    second = make(before=last_times(rows), training_before=saved, began=clock.now)
    steps(second, clock, device=2.0, read=1.0, count=5)
    found = second.interval()
    assert found["timing/run_seconds"] == 30
    assert found["timing/run_productive_share"] == pytest.approx(20 / 30)
    assert last_times([{"step": 1, "loss": 2.0}]) == {}  # of an older run


def test_a_result_that_fails_ends_nothing(clock):
    class Failed:
        def block_until_ready(self):
            raise RuntimeError("the loop meets it, too")

    timer = make()
    timer.dispatched(Failed())
    clock.now = 1.0
    timer.settle()
    steps(timer, clock, device=1.0, read=1.0)
    assert timer.interval()["timing/step_seconds"] == 1
    timer.close()
