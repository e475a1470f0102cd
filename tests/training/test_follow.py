"""Evaluations beside the training, in this process and as processes of their own."""

import contextlib
import json
import os
import shutil
import signal
import time

import pytest

from kprpe_jax import tasks
from kprpe_jax.training import follow as follow_lib
from kprpe_jax.training import loop
from kprpe_jax.training.checkpoint import Checkpoints, restore_for_eval
from kprpe_jax.training.follow import NothingNewError, follow
from kprpe_jax.training.runs import read_config
from kprpe_jax.training.sole_run import sole_follower
from kprpe_jax.training.state import abstract_state
from tests.commands.run_verb import fails
from tests.training import toy
from tests.training.processes import (
    finish,
    start,
    start_command,
    two_processes,
    wait_for_step,
)

PLAIN = toy.make_task(batch_norm=False)
FIELDS = {"mesh.data": 8, "steps": 12, "checkpoint.every_steps": 3}
FIELDS |= {"checkpoint.best_metric": "clean/loss", "checkpoint.best_mode": "min"}


def train(workdir, **overrides):
    config = toy.make_config(**FIELDS, **{"evals.every_steps": 0}, **overrides)
    return loop.train(config, workdir, task=PLAIN)


def rows_of(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def evaluations(workdir):
    return {r["step"]: r["clean/loss"] for r in rows_of(workdir) if "clean/loss" in r}


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    monkeypatch.setattr(tasks, "build", lambda config, mesh: PLAIN)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that evaluated nothing; its last two checkpoints are left."""
    workdir = tmp_path_factory.mktemp("run") / "run"
    train(workdir)
    return workdir


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def best_of(workdir):
    (path,) = (workdir / "best/checkpoints").iterdir()
    return int(path.name)


def test_a_run_evaluates_nothing_and_a_follower_keeps_the_best(run, tmp_path, capsys):
    assert not evaluations(run)
    config = read_config(run)
    mesh = loop.mesh_lib.make_mesh(config.mesh)
    abstract = abstract_state(PLAIN, mesh)
    with pytest.raises(ValueError, match="none in .* was evaluated by 'clean/loss'"):
        restore_for_eval(run, "best", abstract, config)
    results = follow(config, run)
    found = evaluations(run)
    assert list(found) == [9, 12]
    assert results["step"] == 12
    assert results["clean/loss"] == found[12]
    best = min(found, key=found.get)
    assert best_of(run) == best
    state = restore_for_eval(run, "best", abstract, config)
    assert int(state.step) == best
    assert PLAIN.evaluators["clean"](state, mesh)["loss"] == found[best]
    out = capsys.readouterr().out
    assert f"step {best} is the best: clean/loss {found[best]:.4f}" in out
    # The training that evaluates itself finds the same.
    own = toy.make_config(**FIELDS, **{"evals.every_steps": 3})
    loop.train(own, tmp_path / "own", task=PLAIN)
    same = {step: evaluations(tmp_path / "own")[step] for step in found}
    assert same == found
    # What is done is not done again, and nothing else is left in the folder.
    before = rows_of(run)
    assert follow(config, run) == {}
    assert rows_of(run) == before
    assert not (run / "following").exists()
    with contextlib.closing(Checkpoints(run)) as checkpoints:
        assert checkpoints.metrics(9) == checkpoints.metrics(12) == {}


def test_a_run_that_goes_on_keeps_the_evaluations(run):
    config = read_config(run)
    follow(config, run)
    found = evaluations(run)
    longer = toy.make_config(**{**FIELDS, "steps": 15, "evals.every_steps": 0})
    loop.train(longer, run, task=PLAIN, extend=True)
    assert evaluations(run) == found
    follow(read_config(run), run)
    assert list(evaluations(run)) == [9, 12, 15]


def test_a_checkpoint_that_is_deleted_while_it_is_read(run, monkeypatch, capsys):
    monkeypatch.setattr(follow_lib.time, "sleep", lambda seconds: None)
    links = []

    def link(source, target):
        links.append(source)
        if len(links) == 3:  # the training deletes the first checkpoint
            shutil.rmtree(run / "checkpoints/9")
        os_link(source, target)

    os_link = os.link
    monkeypatch.setattr(os, "link", link)
    follow(read_config(run), run)
    assert list(evaluations(run)) == [12]
    assert "step 9 was deleted before it was read" in capsys.readouterr().out


def test_a_checkpoint_that_is_deleted_while_it_is_evaluated(run, monkeypatch):
    def evaluate(state, mesh):
        shutil.rmtree(run / f"checkpoints/{int(state.step)}")
        return PLAIN.evaluators["clean"](state, mesh)

    task = PLAIN._replace(evaluators={"clean": evaluate})
    monkeypatch.setattr(tasks, "build", lambda config, mesh: task)
    follow(read_config(run), run)
    assert list(evaluations(run)) == [9, 12]
    assert best_of(run) in (9, 12)


def test_without_links_files_are_copied(run, monkeypatch):
    def link(source, target):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    shutil.copytree(run / "checkpoints/9", run / "checkpoints/11")
    (run / "checkpoints/11/commit_success.txt").unlink()  # it is being written
    follow(read_config(run), run)
    assert list(evaluations(run)) == [9, 12]


def test_refusals(run):
    config = read_config(run)
    with (
        sole_follower(run),
        pytest.raises(ValueError, match="one follower; got a run that another pro"),
    ):
        follow(config, run)
    with config.unlocked():
        config.checkpoint.best_metric = "other/loss"
    with pytest.raises(ValueError, match="'other/loss' must be of an evaluator that"):
        follow(config, run)
    config.checkpoint.best_metric = "clean/los"
    with pytest.raises(ValueError, match="must be one of clean/loss, clean/acc.*'clea"):
        follow(config, run)
    assert not (run / "best").exists()


def test_refusals_of_the_command(run, tmp_path, capsys):
    for model, options, sentence in (
        (tmp_path, (), "must be the folder of a run that has begun"),
        (f"{run}@last", (), "must be the folder of a run that has begun"),
        (run, ("--output=x.json",), "--follow writes to the run's metrics.jsonl"),
        (run, ("--patience=nan",), "--patience must be above 0; got nan"),
        (run, ("--evaluators=cleen",), "no evaluator 'cleen'"),
    ):
        told = fails(capsys, "eval", f"--model={model}", "--follow", *options)
        assert sentence in told
    assert not evaluations(run)


def test_a_run_that_goes_no_further(run):
    stored = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(stored | {"steps": 100}))
    with pytest.raises(NothingNewError, match="nothing new for 0.001 minutes after st"):
        follow(read_config(run), run, patience=0.06, poll=0.05)
    assert list(evaluations(run)) == [9, 12]


def follow_process(workdir, *options, **environ):
    command = (f"--model={workdir}", "--follow", *options)
    return start_command(*command, TOY_VERB="eval", **environ)


@pytest.mark.slow
def test_training_and_followers_as_processes(tmp_path):
    """A training that is killed and goes on, two processes that follow, a second."""
    workdir = tmp_path / "run"
    options = ["--config.steps=600", "--config.evals.every_steps=0"]
    options += ["--config.checkpoint.every_steps=20"]
    training = start(workdir, *options)
    wait_for_step(workdir, 41, training)
    training.kill()
    finish(training)
    two = [follow_process(workdir, *of_two) for of_two in two_processes()]
    while not evaluations(workdir):
        assert two[0].poll() is None, finish(two[0])
        time.sleep(0.05)
    code, out, err = finish(follow_process(workdir))
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert "must have one follower" in err
    code, out, err = finish(start(workdir, *options))
    assert code == 0, err
    (code, out, err), (other_code, other_out, _) = map(finish, two)
    assert (code, other_code) == (0, 0), err
    assert "step" not in other_out  # one of them tells, and writes
    found = evaluations(workdir)
    assert found.keys() >= {600}
    accuracies = {r["step"]: r.get("clean/accuracy") for r in rows_of(workdir)}
    best = best_of(workdir)
    assert accuracies[best] == max(accuracies[step] for step in found)
    told = [line for line in out.splitlines() if line.startswith("step")]
    assert len(told) == len(found) + out.count("is the best") + out.count("deleted")
    steps = [row["step"] for row in rows_of(workdir) if "loss" in row]
    assert steps == list(range(1, 601))
    with contextlib.closing(Checkpoints(workdir / "best")) as checkpoints:
        assert checkpoints.metrics(best)["clean/accuracy"] == accuracies[best]


@pytest.mark.slow
def test_a_follower_is_ended_and_goes_on(run):
    config = json.loads((run / "config.json").read_text())
    config |= {"steps": 40, "mesh": config["mesh"] | {"data": -1}}
    (run / "config.json").write_text(json.dumps(config))
    follower = follow_process(run, TOY_BATCH_NORM="false")
    while len(evaluations(run)) < 2:
        assert follower.poll() is None, finish(follower)
        time.sleep(0.05)
    follower.send_signal(signal.SIGINT)
    assert finish(follower)[0] == 130
    code, _, err = finish(
        follow_process(run, "--patience=0.05", TOY_BATCH_NORM="false")
    )
    assert code == 1
    assert "has had nothing new for 0.05 minutes after step 12 of 40" in err
