import io
import json

import pytest
from tensorboardX.proto import event_pb2

from kprpe_jax.training.logging import RunLog

SPEED = {"images_per_second": 80.0, "timing/step_seconds": 0.2}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def steps_of(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def write(folder, steps, *, start_step=0, stream=None, **options):
    stream = stream or io.StringIO()
    log = RunLog(folder, steps=100, start_step=start_step, stream=stream, **options)
    for step in steps:
        log.progress(step, {"loss": 1.0 / step}, SPEED)
    log.close()
    return stream.getvalue()


def test_plain_lines(tmp_path):
    lines = write(tmp_path, [1, 2]).splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("step 2/100  loss 0.5000  ")
    assert lines[1].endswith(" images/s  ETA 0:00:19")


def test_a_terminal_has_one_line(tmp_path):
    text = write(tmp_path, [1, 2, 3], stream=Terminal())
    assert text.count("\n") == 1
    assert text.count("\r") == 3
    assert text.endswith("\n")


def test_speed_and_eta(tmp_path):
    text = write(tmp_path, [20])  # 80 steps of 0.2 s to go: 16 s
    assert "80 images/s  ETA 0:00:16" in text


def test_rows_beyond_the_restored_step_are_dropped(tmp_path):
    write(tmp_path, [1, 2, 3, 4])
    with (tmp_path / "metrics.jsonl").open("a") as rows:
        rows.write('{"step": 5, "lo')  # killed while writing
    write(tmp_path, [3, 4, 5], start_step=2)
    assert steps_of(tmp_path) == [1, 2, 3, 4, 5]


def test_the_time_of_lost_steps_was_spent(tmp_path):
    for start, seconds in ((0, 10.0), (0, 25.0)):
        log = RunLog(tmp_path, steps=9, start_step=start, stream=io.StringIO())
        total = log.times_before.get("timing/run_seconds", 0.0) + seconds
        log.progress(1, {"loss": 1.0}, SPEED | {"timing/run_seconds": total})
        log.evaluation(2, {"clean/loss": 1.0})
        log.close()
    log = RunLog(tmp_path, steps=9, start_step=0, stream=io.StringIO())
    log.close()
    assert log.times_before["timing/run_seconds"] == 35.0
    assert steps_of(tmp_path) == []


def test_events_hold_the_scalars(tmp_path):
    write(tmp_path, [1, 2])
    (path,) = tmp_path.glob("events.*")
    found, data = [], path.read_bytes()
    while data:  # TFRecord: length, its checksum, the record, its checksum
        size = int.from_bytes(data[:8], "little")
        event = event_pb2.Event.FromString(data[12 : 12 + size])
        data = data[16 + size :]
        found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
    assert (2, "loss", pytest.approx(0.5)) in found


def test_other_processes_write_nothing(tmp_path):
    assert write(tmp_path, [1, 2], is_main=False) == ""
    assert list(tmp_path.iterdir()) == []
