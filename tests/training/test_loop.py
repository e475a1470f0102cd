import contextlib
import json
import logging
import os
import signal

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from kprpe_jax.training import loop
from kprpe_jax.training.checkpoint import Checkpoints
from kprpe_jax.training.finite import NonFiniteError
from kprpe_jax.training.state import abstract_state
from tests.training import toy

PLAIN = toy.make_task(batch_norm=False)


def train(workdir, *, task=PLAIN, bad_row=None, **overrides):
    overrides = {"mesh.data": 8, "steps": 6, "evals.every_steps": 3, **overrides}
    config = toy.make_config(**overrides)
    if bad_row is not None:
        bad = toy.make_task(bad_row=bad_row)
        task = task._replace(open_training=bad.open_training)
    return loop.train(config, workdir, task=task)


def rows_of(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_trains_logs_evaluates_and_saves(tmp_path, capsys, caplog):
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        results = train(tmp_path, **{"checkpoint.every_steps": 5})
    name = "Finished XLA compilation of jit(train_step)"
    assert sum(name in record.message for record in caplog.records) == 1
    assert results["compilations"] == 1
    assert results["learning_rate"] > 0
    assert {"loss", "accuracy", "clean/accuracy"} <= results.keys()
    out = capsys.readouterr().out
    for text in (
        "mesh: data=8 x fsdp=1 x class=1 on 8 cpu devices, 1 processes",
        "parameters: 1,924 in all",
        "MiB per device expected for a step",
        "step 6/6  loss ",
        "step 3  clean/loss ",
    ):
        assert text in out
    rows = rows_of(tmp_path)
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if "clean/loss" in row] == [3, 6]
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        assert set(checkpoints.steps) >= {5, 6}  # and the best of 3 and 6
        meta = checkpoints.meta(6)
    assert meta["data"] == {"next_batch": 6}
    assert meta["config"]["steps"] == 6
    # A run that is done says what it found then, and trains no further.
    assert train(tmp_path, **{"checkpoint.every_steps": 5}) == results


def test_no_batch_is_read_or_put_twice(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(
        loop.mesh_lib,
        "put_batch",
        lambda batch, mesh, put=loop.mesh_lib.put_batch: (
            read.append(batch["id"]) or put(batch, mesh)
        ),
    )
    train(tmp_path)
    assert len(read) == 6
    assert len(np.unique(np.concatenate(read))) == 96  # one epoch: each row once


def test_nan_stops_with_step_and_rows_and_keeps_the_checkpoint(tmp_path):
    cadence = {"checkpoint.every_steps": 1, "evals.every_steps": 100}
    batches = loop._open_batches(toy.make_config(), PLAIN.open_training(0), 0)
    ids = [next(batches)["id"] for _ in range(4)]
    wanted = str(sorted(ids[3].tolist())).replace("[", r"\[").replace("]", r"\]")
    with pytest.raises(
        NonFiniteError,
        match=f"not finite at step 4, whose batch has the rows {wanted}; .*: step 3",
    ):
        train(tmp_path, bad_row=int(ids[3][0]), **cadence)
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        assert checkpoints.steps[-1] == 3


def test_an_update_that_is_not_finite_is_never_saved(tmp_path):
    """Of the last step: no later loss tells."""
    fields = {"optimizer.name": "sgd", "optimizer.learning_rate": 3e38, "steps": 1}
    fields |= {"optimizer.warmup": 0.0, "optimizer.weight_decay": 100.0}
    fields |= {"optimizer.clip_norm": 0.0}
    with pytest.raises(
        NonFiniteError, match=r"parameters are not .* after step 1,.*: none yet"
    ):
        train(tmp_path, **fields)
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        assert not checkpoints.steps


def test_nan_between_checks_is_found_at_the_next(tmp_path):
    cadence = {"log.every_steps": 5, "evals.every_steps": 100}
    batches = loop._open_batches(toy.make_config(), PLAIN.open_training(0), 0)
    ids = [next(batches)["id"] for _ in range(2)]
    with pytest.raises(NonFiniteError, match=r"step 2, .*checkpoint: none yet"):
        train(tmp_path, bad_row=int(ids[1][0]), **cadence)


def test_sigterm_saves_and_returns_and_the_rest_is_the_same(tmp_path):
    straight = train(tmp_path / "straight")
    stopped = tmp_path / "stopped"

    once = [True]

    def evaluate(state, mesh):
        if once:
            once.clear()
            os.kill(os.getpid(), signal.SIGTERM)  # during step 3
        return PLAIN.evaluators["clean"](state, mesh)

    before = signal.getsignal(signal.SIGTERM)
    train(stopped, task=PLAIN._replace(evaluators={"clean": evaluate}))
    assert signal.getsignal(signal.SIGTERM) == before
    assert rows_of(stopped)[-1]["step"] == 4
    resumed = train(stopped, **{"mesh.data": 8})
    assert resumed == straight
    assert [r["step"] for r in rows_of(stopped)] == [
        r["step"] for r in rows_of(tmp_path / "straight")
    ]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"mesh.data": 3}, "does not fit 8 devices"),
        ({"data.batch_size": 12}, "12 rows do not divide over 8 devices; take a pos"),
        ({"evals.batch_size": 12}, "evals.batch_size: 12 rows do not divide over 8 de"),
        ({"evals.batch_size": 0}, "evals.batch_size must be at least 1; got 0"),
        ({"optimizer.name": "adam"}, "must be adamw or sgd; got 'adam'"),
        ({"checkpoint.best_metric": "x/y"}, "evaluator of evals.in_training, or empty"),
    ],
)
def test_a_fault_of_the_config_writes_nothing(tmp_path, overrides, message):
    with pytest.raises(ValueError, match=message):
        train(tmp_path / "w", **overrides)
    assert not (tmp_path / "w").exists()


def test_best_metric_that_no_evaluator_gives(tmp_path):
    cadence = {"checkpoint.every_steps": 100}
    for _ in range(2):  # started again it begins with what it could not evaluate
        with pytest.raises(
            ValueError,
            match="best_metric must be one of clean/loss, clean/acc.*'clean/x'",
        ):
            train(tmp_path, **cadence, **{"checkpoint.best_metric": "clean/x"})
        with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
            assert checkpoints.steps == [3]  # no step is lost
    assert train(tmp_path, **cadence)["step"] == 6
    assert [r["step"] for r in rows_of(tmp_path) if "clean/loss" in r] == [3, 6]
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        assert checkpoints.metrics(3)["clean/accuracy"] >= 0  # counts for "best"


def test_an_evaluation_that_fails_at_the_end_is_made_up_for(tmp_path):
    def fail(state, mesh):
        raise ValueError("clean: row 7 cannot be read")

    cadence = {"evals.every_steps": 100, "checkpoint.every_steps": 100}
    task = PLAIN._replace(evaluators={"clean": fail})
    with pytest.raises(ValueError, match="row 7 cannot be read"):
        train(tmp_path, task=task, **cadence)
    rows = rows_of(tmp_path)
    results = train(tmp_path, **cadence)  # of the data mended
    assert {"loss", "clean/accuracy", "step"} <= results.keys()
    assert rows_of(tmp_path)[: len(rows)] == rows
    assert rows_of(tmp_path)[-1]["clean/accuracy"] == results["clean/accuracy"]
    assert train(tmp_path, **cadence) == results


def test_workdir_of_another_run(tmp_path):
    train(tmp_path, steps=3)
    with pytest.raises(ValueError, match="holds a run whose steps is 3 while this con"):
        train(tmp_path)
    with pytest.raises(ValueError, match="is of another model: "):
        train(tmp_path, steps=3, task=toy.make_task())


def test_abstract_state_is_what_the_loop_restores(tmp_path):
    train(tmp_path, steps=3)
    mesh = loop.mesh_lib.make_mesh({"data": 1, "fsdp": 8, "class": 1})
    abstract = abstract_state(PLAIN, mesh)
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        state = checkpoints.restore(3, abstract.replace(opt_state=None))
    assert int(state.step) == 3
    assert state.params["hidden"]["kernel"].sharding.spec == P(None, "fsdp")
