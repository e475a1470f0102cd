"""Runs in buckets: killed and continued, two at once, a store that goes away."""

import json
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
from tests.bucket_servers import BUCKET, environ, serve, variables
from tests.training import toy
from tests.training.processes import finish, last_state, metrics, start


@pytest.fixture(scope="module", params=["s3", "gs"])
def store(request):
    """The root of a bucket."""
    with serve(request.param) as (_, values), environ(values):
        yield f"{request.param}://{BUCKET}"


def files(folder):
    """The names in a folder."""
    return {path.name for path in as_path(folder).iterdir()}


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
        time.sleep(3)  # many beats
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


@pytest.mark.slow
def test_killed_in_a_save_it_continues_with_the_same_bits(store, tmp_path):
    arguments = ["--config.steps=60", "--config.checkpoint.every_steps=10"]
    arguments += ["--config.evals.every_steps=30"]
    code, _, err = finish(start(tmp_path / "straight", *arguments))
    assert code == 0, err
    run = f"{store}/killed"
    for step in (10, 40):
        process = start(run, *arguments)
        while not as_path(f"{run}/checkpoints/{step}").exists():  # a save has begun
            assert process.poll() is None, finish(process)
            time.sleep(0.01)
        process.kill()
        finish(process)
    code, out, err = finish(start(run, *arguments))
    assert code == 0, err
    assert "continues after step" in out
    assert "another training" not in err  # the owner that was killed is known
    (step_a, a), (step_b, b) = last_state(tmp_path / "straight"), last_state(run)
    assert step_a == step_b == 60
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert metrics(as_path(run)) == metrics(tmp_path / "straight")


@pytest.mark.slow
def test_two_runs_in_one_folder_end_with_a_sentence(store):
    run = f"{store}/two"
    first = start(run, TOY_HANG_ROW="7")
    while not as_path(f"{run}/lock").exists():
        assert first.poll() is None, finish(first)
        time.sleep(0.1)
    code, _, err = finish(start(run))
    assert code == 2, err
    assert err.strip().splitlines()[-1].endswith("give another workdir.")
    assert "Traceback" not in err
    first.kill()
    finish(first)
    code, _, err = finish(start(run))
    assert code == 0, err


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_store_that_goes_away_ends_the_run_with_a_sentence(scheme):
    with serve(scheme) as (server, values):
        run = f"{scheme}://{BUCKET}/gone"
        with environ(values):
            process = start(run, "--config.steps=100000")
            while b'"step": 10,' not in _rows(run):
                assert process.poll() is None, finish(process)
                time.sleep(0.1)
        server.kill()
        began = time.monotonic()
        code, _, err = finish(process)
    assert code == 1, err
    assert f"error: {run}" in err.strip().splitlines()[-1]
    assert "Traceback" not in err
    assert time.monotonic() - began < 200


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_store_that_is_not_there_ends_the_command(scheme):
    pytest.importorskip({"s3": "s3fs", "gs": "gcsfs"}[scheme])
    began = time.monotonic()
    for endpoint in ("http://127.0.0.1:9", "http://192.0.2.1"):  # closed; no answer
        process = start(f"{scheme}://b/run", **variables(scheme, endpoint))
        code, _, err = finish(process)
        assert code == 2, err
        assert err.startswith(f"error: --workdir {scheme}://b/run: the bucket b must")
        assert err.count("\n") == 1
    assert time.monotonic() - began < 120


def _rows(run):
    path = as_path(run) / "metrics.jsonl"
    return path.read_bytes() if path.exists() else b""


@pytest.mark.slow
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
