"""train.py and eval.py on the digits, as a user starts them."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.tasks import tiny

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = "--config=configs/digits.py"
RUN = {
    "steps": 6,
    "checkpoint.every_steps": 3,
    "checkpoint.best_metric": "clean/accuracy",
    "evals.every_steps": 3,
    "evals.in_training": ("clean",),
    "evals.sweep.severities": (0.0, 1.0),
    "evals.noise.alphas": (0.0, 0.1),
}


def start(*arguments, devices=2, **options):
    """Run Python to its end."""
    environ = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environ |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT, env=environ, capture_output=True, text=True, timeout=400, **options,
    )  # fmt: skip


def start_many(name, runs):
    """Run a command on each argument list; give (code, stdout, stderr) of each."""
    done = start("-m", "tests.many_runs", name, input=json.dumps(runs))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def files_of(folder):
    """Every file's bytes, to see that nothing was written."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def assert_one_sentence(result, message, workdir=None):
    code, out, err = result
    assert code == 2, err
    assert message in err
    assert err.strip().count("\n") == 0, err
    assert out == ""
    if workdir is not None:
        assert not workdir.exists()


def test_a_typo_is_one_sentence(tmp_path):
    done = start("train.py", CONFIG, f"--workdir={tmp_path / 'w'}", "--config.steos=1")
    assert_one_sentence(
        (done.returncode, done.stdout, done.stderr),
        "there is no field steos; the nearest is steps",
        tmp_path / "w",
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of train.py: its folder and what it said."""
    workdir = tmp_path_factory.mktemp("finished") / "w"
    done = start("train.py", CONFIG, f"--workdir={workdir}", *tiny.arguments(**RUN))
    assert done.returncode == 0, done.stderr
    return workdir, done


@pytest.mark.slow
def test_train_writes_what_it_promises(finished):
    workdir, done = finished
    config = json.loads((workdir / "config.json").read_text())
    assert config["steps"] == 6
    assert config["model"]["width"] == 16
    versions = json.loads((workdir / "versions.json").read_text())
    assert {"jax", "flax", "optax", "kprpe_jax", "device_kind"} <= versions.keys()
    rows = [
        json.loads(line) for line in (workdir / "metrics.jsonl").read_text().split("\n")
        if line
    ]  # fmt: skip
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if "clean/accuracy" in row] == [3, 6]
    assert {row["compilations"] for row in rows if "loss" in row} == {1}
    assert list(workdir.glob("events.out.tfevents.*"))
    steps = {path.name for path in (workdir / "checkpoints").iterdir()}
    assert steps == {"3", "6"}
    for text in ("mesh: data=2", "parameters: ", "MiB per device", "step 6/6  loss "):
        assert text in done.stdout
    assert done.stderr == ""


@pytest.mark.slow
def test_eval_writes_json_and_a_table(finished, tmp_path):
    workdir, _ = finished
    before = files_of(workdir)
    output = tmp_path / "results.json"
    done = start("eval.py", f"--model={workdir}@last", f"--output={output}", devices=1)
    assert done.returncode == 0, done.stderr
    assert files_of(workdir) == before
    results = json.loads(output.read_text())
    assert results["step"] == 6
    assert {n for n in results if n.startswith("sweep/")} == {
        "sweep/0", "sweep/1", "sweep/count",
    }  # fmt: skip
    assert {n for n in results if n.startswith("noise/")} == {
        "noise/uniform_0", "noise/uniform_0.1", "noise/scale_0", "noise/scale_0.1",
        "noise/count",
    }  # fmt: skip
    assert {v for n, v in results.items() if n.endswith("count")} == {360}
    assert results["sweep/1"] == results["affine/accuracy"] == results["noise/scale_0"]
    assert results["sweep/0"] == results["clean/accuracy"]
    # Another mesh than in training, the same number.
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").open()]
    assert results["clean/accuracy"] == pytest.approx(rows[-1]["clean/accuracy"])
    table = dict(line.split() for line in done.stdout.splitlines()[:-1])
    assert table.keys() == results.keys()
    for name, text in table.items():
        assert float(text) == pytest.approx(results[name], rel=1e-5)
    assert done.stdout.splitlines()[-1] == f"written to {output}"
    assert done.stderr == ""


@pytest.mark.slow
def test_eval_of_some_evaluators_goes_beside_the_run(finished, tmp_path):
    workdir = tmp_path / "w"
    shutil.copytree(finished[0], workdir)
    done = start("eval.py", f"--model={workdir}@3", "--evaluators=affine")
    assert done.returncode == 0, done.stderr
    results = json.loads((workdir / "eval.json").read_text())
    assert results.keys() == {"step", "affine/accuracy", "affine/count"}
    assert results["step"] == 3


@pytest.mark.slow
def test_every_bad_input_of_train_is_one_sentence_and_writes_nothing(
    finished, tmp_path
):
    workdir = tmp_path / "w"
    other = tmp_path / "other"
    shutil.copytree(finished[0], other)
    empty = tmp_path / "empty"
    empty.mkdir()
    cases = [
        # What is wrong, the folder, the sentence.
        ({"model.posision": "rpe"}, workdir, "no field model.posision; the nearest is"),
        ({"steps": "many"}, workdir, "steps must be of type int; got 'many'"),
        ({"mesh.data": 3}, workdir, "data=3, fsdp=1, class=1 does not fit 2 devices"),
        ({"data.batch_size": 15}, workdir, "15 rows do not divide over 2 devices"),
        ({"model.image_size": (48, 48)}, workdir, "must be the canvas (40, 40)"),
        ({"data.image_shape": (32, 32, 1)}, workdir, "images must be uint8 [b, 32, 32"),
        ({"data.image_shape": (28, 28, 3)}, workdir, "images must be uint8 [b, 28, 28"),
        ({"data.num_keypoints": 7}, workdir, "keypoints must be [16, 7, 2]"),
        (
            {"model.position_options.num_keypoints": 6},
            workdir,
            "num_keypoints = 5; got 6",
        ),
        ({"data.num_classes": 5}, workdir, "labels must be 0..4; got"),
        ({"data.name": "faces"}, workdir, "must be a prepared data set"),
        ({"data.name": "mnist", "data.dir": str(empty)}, workdir, "empty or does not"),
        ({"data.train_split": "training"}, workdir, "got 'training'"),
        ({"model.position": "kprpe"}, workdir, "unknown position 'kprpe'; use one of"),
        ({"task": "detection"}, workdir, "unknown task 'detection'"),
        ({"optimizer.name": "lion"}, workdir, "must be adamw or sgd; got 'lion'"),
        ({"evals.in_training": ("cleen",)}, workdir, "got 'cleen'"),
        ({"steps": 7}, other, "holds a run whose steps is 6 while this config has 7"),
        ({"model.depth": 2}, other, "holds a run whose model.depth is 1"),
    ]
    before = files_of(other)
    runs = [
        [CONFIG, f"--workdir={folder}", *tiny.arguments(**{**RUN, **wrong})]
        for wrong, folder, _ in cases
    ]
    runs += [[CONFIG], [f"--workdir={workdir}"], [CONFIG, f"--workdir={workdir}", "x"]]
    runs += [["--config=configs/digit.py", f"--workdir={workdir}"]]
    runs += [[CONFIG, f"--workdir={workdir}", f"--wordir={workdir}"]]
    sentences = [sentence for _, _, sentence in cases]
    sentences += ["required: --workdir", "required: --config", "belongs to no option"]
    sentences += ["--config configs/digit.py: there is no such file", "did you mean"]
    results = start_many("train", runs)
    for sentence, result in zip(sentences, results, strict=True):
        assert_one_sentence(result, sentence)
    assert not workdir.exists()
    assert files_of(other) == before
    assert not any(empty.iterdir())


@pytest.mark.slow
def test_every_bad_input_of_eval_is_one_sentence_and_writes_nothing(finished, tmp_path):
    workdir = finished[0]
    before = files_of(workdir)
    nothing = tmp_path / "nothing"
    cases = [
        ({"model.depth": 2}, workdir, "model.depth is 1 in the run and 2 here"),
        (
            # Of the same shapes, but not the same network.
            {"model.activation": "gelu", "model.position_options.scale_bias": True},
            workdir,
            "2 fields of the config differ: model.activation is 'relu6' in the run and "
            "'gelu' here; model.position_options.scale_bias is False in the run",
        ),
        ({"evals.batch_sise": 2}, workdir, "the nearest is evals.batch_size"),
        ({"evals.batch_size": 3}, workdir, "3 rows do not divide over 2 devices"),
        ({"mesh.fsdp": 3}, workdir, "does not fit 2 devices"),
        ({"data.num_classes": 5}, workdir, "num_classes is 10 in the run and 5"),
        ({"evals.x.type": "exact"}, workdir, "no type 'exact'; the nearest is"),
        ({"checkpoint.best_metric": "clean/loss"}, workdir, "was evaluated by"),
        ({}, nothing, "must be the folder of a run, FOLDER[@CHECKPOINT], or NAME:"),
        ({}, f"{workdir}@5", "has no '5'; ask for best, last or one of"),
    ]
    runs = [
        [f"--model={spec}", *(f"--config.{k}={v}" for k, v in wrong.items())]
        for wrong, spec, _ in cases
    ]
    more = {
        "--evaluators=clear": "no evaluator 'clear'; use some of",
        f"--output={nothing}/x.json": "x.json lies in no folder",
        "--evaluator=clean": "unknown option --evaluator; did you mean --evaluators?",
        "--config=lfw": "must be of the run's task classification; got one of face_",
    }
    runs += [[f"--model={workdir}", option] for option in more]
    cases += [(sentence,) for sentence in more.values()]
    for case, result in zip(cases, start_many("eval", runs), strict=True):
        assert_one_sentence(result, case[-1], nothing)
    # As a process of its own, too: nobody's log around the sentence.
    done = start("eval.py", *runs[0])
    assert_one_sentence((done.returncode, done.stdout, done.stderr), cases[0][-1])
    assert files_of(workdir) == before


@pytest.mark.slow
def test_nan_exits_1_and_the_last_good_checkpoint_stays(tmp_path):
    """A step too long on the second update makes the third loss NaN."""
    wrong = {
        "optimizer.name": "sgd",
        "optimizer.learning_rate": 1e30,
        "optimizer.schedule": "constant",
        "optimizer.clip_norm": 0.0,
        "checkpoint.every_steps": 1,
        "evals.in_training": (),
        "checkpoint.best_metric": "",
    }
    done = start(
        "train.py", CONFIG, f"--workdir={tmp_path}",
        *tiny.arguments(**{**RUN, **wrong}),
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    (sentence,) = done.stderr.strip().splitlines()
    assert "not finite at step 2, whose batch has the rows [" in sentence
    assert len(sentence.split("[")[1].split("]")[0].split(",")) == 16
    assert "last good checkpoint: step 1" in sentence
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["1"]
