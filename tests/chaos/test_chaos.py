"""A few of what `make chaos` does many times."""

import time

import pytest

from tests.chaos.enrollment import Crowd, finish
from tests.chaos.small_disk import in_own_mounts

pytestmark = pytest.mark.slow


def assert_same_end(found):
    if "not run" in found:
        pytest.skip(found["not run"])
    assert not found["differences"], found


def test_a_disk_that_fills_up_while_training_saves(tmp_path):
    found = in_own_mounts("training", tmp_path, 1, 3)
    assert_same_end(found)
    assert found["filled up"] == 1


def test_two_writers_of_whom_one_is_killed_and_a_read_only_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    crowd = Crowd(tmp_path, 84)
    gallery, tables = tmp_path / "straight.gallery", [tmp_path / x for x in "ab"]
    first, second = (crowd.start(gallery, table) for table in tables)
    while first.poll() is None and not crowd.read(gallery):
        time.sleep(0.01)
    first.kill()
    for process, table in (
        (second, tables[1]),
        (crowd.start(gallery, tables[0]), tables[0]),
    ):
        code, _, err = finish(process)
        assert code == 0, err
        assert not crowd.faults(gallery, table)
    finish(first)
    assert_same_end(in_own_mounts("read_only", tmp_path, 1, 0))
