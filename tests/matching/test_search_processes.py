"""A gallery searched by two real processes of two devices each."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests.ports import free_address

ROOT = pathlib.Path(__file__).parents[2]


def start(out, devices, *arguments):
    environ = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environ |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    command = [sys.executable, "-m", "tests.matching.run_search", str(out), *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environ)


@pytest.mark.slow
def test_two_processes_rank_as_one(tmp_path):
    address = free_address()
    names = ["one.npz", "first.npz", "second.npz"]
    processes = [start(tmp_path / names[0], 1)]
    for number in range(2):
        arguments = (address, "2", str(number))
        processes.append(start(tmp_path / names[1 + number], 2, *arguments))
    assert [process.wait(timeout=200) for process in processes] == [0, 0, 0]
    one, *two = (np.load(tmp_path / name) for name in names)
    assert one["rows"].shape == (7, 12)
    assert one["devices"] == 1
    for found in two:
        assert found["devices"] == 4
        np.testing.assert_array_equal(found["rows"], one["rows"])
        np.testing.assert_allclose(found["scores"], one["scores"], atol=1e-5)
        np.testing.assert_array_equal(found["streamed_rows"], one["streamed_rows"])
        mates = found["streamed_mates"], one["streamed_mates"]
        np.testing.assert_allclose(*mates, atol=1e-5)
