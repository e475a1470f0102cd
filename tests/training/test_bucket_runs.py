"""Runs in buckets: killed and continued, two at once, a store that goes away."""

import contextlib
import json
import os
import socket
import time

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from kprpe_jax.core.paths import as_path
from kprpe_jax.training import bucket_owner, loop
from kprpe_jax.training.checkpoint import Checkpoints
from kprpe_jax.training.profiling import Profile
from kprpe_jax.training.sole_run import sole_run
from tests.bucket_servers import BUCKET, serve, use, variables
from tests.training import toy
from tests.training.processes import finish, last_state, metrics, start

SLOW = pytest.mark.slow
S3 = pytest.mark.parametrize("store", ["s3"], indirect=True)  # gs:// would be the same


@pytest.fixture(scope="module", params=["s3", pytest.param("gs", marks=SLOW)])
def store(request):
    """The root of a bucket."""
    with use(request.param) as bucket:
        yield bucket


def files(folder):
    """The names in a folder."""
    return {path.name for path in as_path(folder).iterdir()}


@S3
def test_a_run_in_a_bucket_is_that_on_a_disk(store, tmp_path, capsys):
    config = toy.make_config(steps=6, **{"evals.every_steps": 3})
    run = f"{store}/run"
    for workdir in (run, tmp_path / "run"):
        result = loop.train(config, workdir, task=toy.make_task())
        assert result["step"] == 6
    kept = {"config.json", "versions.json", "metrics.jsonl", "checkpoints"}
    events = files(run) - kept
    assert files(run) > kept
    assert [name[:19] for name in events] == ["events.out.tfevents"]
    assert metrics(as_path(run)) == metrics(tmp_path / "run")
    (step_a, a), (step_b, b) = last_state(run), last_state(tmp_path / "run")
    assert step_a == step_b == 6
    jax.tree.map(np.testing.assert_array_equal, a, b)
    capsys.readouterr()
    loop.train(config, run, task=toy.make_task())
    assert "all 6 steps were done before" in capsys.readouterr().out
    assert "lock" not in files(run)
    with pytest.raises(ValueError, match="holds a run whose evals.every_steps is 3"):
        loop.train(toy.make_config(seed=1, steps=6), run, task=toy.make_task())


def test_a_folder_of_a_bucket_has_one_owner(store, monkeypatch):
    monkeypatch.setattr(bucket_owner, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(bucket_owner, "WATCH_SECONDS", 2.0)
    run = f"{store}/owned"
    with sole_run(run) as check:
        with pytest.raises(ValueError, match="run alone; got a folder in which anoth"):
            sole_run(run).__enter__()
        check()
        lock = as_path(f"{run}/lock")
        owner = json.loads(lock.read_text())
        lock.write_text(json.dumps({**owner, "id": "another"}))
        time.sleep(1)  # many beats
        with pytest.raises(ValueError, match="another training runs"):
            check()
    assert json.loads(lock.read_text())["id"] == "another"
    # An owner that stands still is gone; of this machine it is known at once.
    with sole_run(run):
        owner = json.loads(lock.read_text())
    assert not lock.exists()
    lock.write_text(json.dumps({**owner, "pid": 2**22 + 1}))
    monkeypatch.setattr(bucket_owner, "WATCH_SECONDS", 1000.0)
    with sole_run(run):
        pass


@SLOW
def test_killed_in_a_save_it_continues_with_the_same_bits(store, tmp_path):
    steps = {"steps": 60, "checkpoint.every_steps": 10, "evals.every_steps": 30}
    arguments = [f"--config.{name}={value}" for name, value in steps.items()]
    straight, run = tmp_path / "straight", f"{store}/killed"
    same = os.environ["XLA_FLAGS"]  # as this process, for the same bits
    process = start(run, *arguments, devices=8, XLA_FLAGS=same)
    loop.train(toy.make_config(**steps), straight, task=toy.make_task())
    while not as_path(f"{run}/checkpoints/30").exists():  # a save has begun
        assert process.poll() is None, finish(process)
        time.sleep(0.05)
    process.kill()
    finish(process)
    assert "lock" in files(run)
    # In this machine's next process; the owner that was killed is known to be dead.
    loop.train(toy.make_config(**steps), run, task=toy.make_task())
    (step_a, a), (step_b, b) = last_state(straight), last_state(run)
    assert step_a == step_b == 60
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert metrics(as_path(run)) == metrics(straight)


@SLOW
def test_a_store_that_goes_away_ends_the_run_with_a_sentence():
    with contextlib.ExitStack() as stack:
        runs = {}
        for scheme in ("s3", "gs"):
            server, values = stack.enter_context(serve(scheme))
            run = f"{scheme}://{BUCKET}/gone"
            runs[run] = server, start(run, "--config.steps=100000", **values)
        for server, process in runs.values():
            while b"step 10/" not in os.pread(process.files[0].fileno(), 10_000, 0):
                assert process.poll() is None, finish(process)
                time.sleep(0.1)
            server.kill()
        began = time.monotonic()
        check_no_answer()  # meanwhile
        for run, (_, process) in runs.items():
            code, _, err = finish(process)
            assert code == 1, err
            assert f"error: {run}" in err.strip().splitlines()[-1]
            assert "Traceback" not in err
        assert time.monotonic() - began < 200


def check_no_answer():
    """A store that takes connections and says nothing ends a command in a minute."""
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = {
            scheme: start(f"{scheme}://b/run", **variables(scheme, address))
            for scheme in ("s3", "gs")
        }
        for scheme, process in started.items():
            code, _, err = finish(process)
            assert code == 2, err
            said = f"error: --workdir {scheme}://b/run: the bucket b must be there"
            assert err.startswith(said)
            assert err.count("\n") == 1
    assert time.monotonic() - began < 60


@SLOW
@S3
def test_what_no_save_has_finished_is_no_checkpoint(store):
    run = f"{store}/unfinished"
    config = toy.make_config(steps=10)
    loop.train(config, run, task=toy.make_task())
    as_path(f"{run}/checkpoints/10/commit_success.txt").unlink()
    assert Checkpoints(run).steps == [5]
    assert loop.train(config, run, task=toy.make_task())["step"] == 10


def test_a_trace_goes_to_the_bucket(store):
    run = f"{store}/traced"
    profile = Profile(ConfigDict({"start": 1, "steps": 1}), run, done=0, last=9)
    profile.before(1)
    assert f"steps 1 to 1 are in {run}/plugins/profile" in profile.after(1, ())
    (folder,) = (as_path(run) / "plugins/profile").iterdir()
    (trace,) = (path for path in folder.iterdir() if path.name.endswith(".xplane.pb"))
    assert jax.profiler.ProfileData.from_serialized_xspace(trace.read_bytes()).planes
