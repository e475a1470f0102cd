"""Whole runs as processes: exit codes, kill and resume, several processes."""

import contextlib
import signal

import jax
import numpy as np
import pytest

from kprpe_jax.core import mesh as mesh_lib
from kprpe_jax.training.checkpoint import Checkpoints
from tests.training.processes import (
    finish,
    last_state,
    losses,
    start,
    start_two,
    wait_for_step,
)


@pytest.mark.slow
def test_faults_of_the_user_are_one_line_and_exit_2(tmp_path):
    for arguments, message in (
        (["--config.stepz=1"], "config: there is no field stepz; the nearest is steps"),
        (["--config.mesh.data=5"], "does not fit 2 devices"),
        (["extra"], "'extra' belongs to no option"),
    ):
        code, out, err = finish(start(tmp_path / "w", *arguments))
        assert code == 2, err
        assert message in err
        assert err.count("\n") == 1
        assert out == ""
        assert not (tmp_path / "w").exists()
    code, _, err = finish(start(tmp_path / "w", "--config.mesh.data=5", "--debug"))
    assert code == 1
    assert "Traceback" in err


@pytest.mark.slow
def test_nan_exits_1(tmp_path):
    code, _, err = finish(start(tmp_path, TOY_BAD_ROW="7"))
    assert code == 1
    assert (
        err.strip()
        .splitlines()[-1]
        .startswith("error: train: the loss or its gradient is")
    )
    assert "Traceback" not in err


@pytest.mark.slow
def test_killed_and_started_again_gives_the_same_bits(tmp_path):
    arguments = ["--config.steps=300", "--config.checkpoint.every_steps=20"]
    arguments += ["--config.evals.every_steps=100"]
    straight = start(tmp_path / "straight", *arguments)
    code, _, err = finish(straight)
    assert code == 0, err
    killed = tmp_path / "killed"
    for step in (50, 170):
        process = start(killed, *arguments)
        wait_for_step(killed, step, process)
        process.kill()
        finish(process)
    code, out, err = finish(start(killed, *arguments))
    assert code == 0, err
    assert "continues after step" in out
    (step_a, a), (step_b, b) = last_state(tmp_path / "straight"), last_state(killed)
    assert step_a == step_b == 300
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert losses(tmp_path / "straight") == losses(killed)


@pytest.mark.slow
def test_sigterm_exits_0_with_a_checkpoint(tmp_path):
    process = start(
        tmp_path, "--config.steps=100000", "--config.evals.every_steps=9999"
    )
    wait_for_step(tmp_path, 30, process)
    process.send_signal(signal.SIGTERM)
    code, out, err = finish(process)
    assert code == 0, err
    assert "SIGTERM: stops after step" in out
    step, _ = last_state(tmp_path)
    assert step == max(losses(tmp_path)) >= 30


@pytest.mark.slow
@pytest.mark.parametrize("sizes", ["4,1,1", "2,2,1", "1,2,2"])
def test_two_processes_agree_with_one(tmp_path, sizes):
    sizes = dict(zip(mesh_lib.AXES, sizes.split(","), strict=True))
    mesh = [f"--config.mesh.{axis}={n}" for axis, n in sizes.items()]
    one, two = tmp_path / "one", tmp_path / "two"
    processes = [start(one, devices=1), *start_two(two, *mesh)]
    for process in processes:
        code, _, err = finish(process)
        assert code == 0, err
    assert len(losses(one)) == 20
    for step, loss in losses(one).items():
        np.testing.assert_allclose(losses(two)[step], loss, rtol=1e-5, atol=1e-5)
    a, b = last_state(one)[1], last_state(two)[1]
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
        a.params,
        b.params,
    )


@pytest.mark.slow
def test_two_processes_stop_together_on_sigterm(tmp_path):
    arguments = ["--config.steps=100000", "--config.evals.every_steps=9999"]
    processes = start_two(tmp_path, *arguments)
    wait_for_step(tmp_path, 20, processes[0])
    processes[1].send_signal(signal.SIGTERM)  # one of them: the other must follow
    results = [finish(process) for process in processes]
    assert [code for code, _, _ in results] == [0, 0], results
    step, _ = last_state(tmp_path)
    assert step == max(losses(tmp_path))
    # Started again as one process, on another number of devices, it goes on.
    process = start(tmp_path, *arguments, devices=1)
    wait_for_step(tmp_path, step + 5, process)
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 0


@pytest.mark.slow
def test_a_run_whose_steps_stop_ends_and_continues(tmp_path):
    """A row that does not come in the third epoch, then it does."""
    options = ["--config.steps=40", "--config.checkpoint.every_steps=5"]
    process = start(
        tmp_path / "run",
        *options,
        "--config.log.watchdog_minutes=0.05",
        TOY_HANG_ROW="7",
    )
    code, _, error = finish(process)
    assert code == 1
    assert "Timeout (0:00:03)!" in error
    assert "in train" in error  # the stack of the loop
    with contextlib.closing(Checkpoints(tmp_path / "run")) as checkpoints:
        saved = list(checkpoints.steps)
    code, out, error = finish(start(tmp_path / "run", *options))
    assert code == 0, error
    assert f"continues after step {saved[-1]}" in out
    assert "log.watchdog_minutes: 0.05 -> 0.0" in out
