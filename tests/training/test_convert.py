"""Runs of version 1, made by the code of then: once converted they are read."""

import json
import pathlib
import zipfile

import pytest

from kprpe_jax import registry, tasks
from kprpe_jax.evaluation import evaluators
from kprpe_jax.recognizers import load_recognizer
from kprpe_jax.training import convert, loop, runs
from kprpe_jax.training.checkpoint import Checkpoints, fingerprint
from kprpe_jax.training.config import override_config
from kprpe_jax.training.evaluate import evaluate, evaluate_recognizer
from kprpe_jax.training.optimizer import make_optimizer
from kprpe_jax.training.state import abstract_state
from tests.tasks import made_features, made_patches, synthetic_people, test_gait, tiny

RUNS = pathlib.Path(__file__).parents[1] / "fixtures" / "runs"
NAMES = sorted(path.stem for path in RUNS.glob("v1_*.zip"))
DATA = {  # of the runs -> folder, and what else tells where the data are
    "v1_digits": lambda: {"data.dir": tiny.data_dir()},
    "v1_gait": lambda: {"data.dir": test_gait.overrides()["data.dir"]},
    "v1_set_fusion": lambda: {
        "data.dir": made_features.data_dir(),
        "data.features": made_features.make_config().data.features,
    },
    "v1_pair_matching": lambda: {
        "data.dir": made_patches.data_dir(),
        "data.name": made_patches.make_config().data.name,
    },
}


def unpack(name, folder):
    """A run of version 1 in a folder of its own."""
    with zipfile.ZipFile(RUNS / f"{name}.zip") as file:
        file.extractall(folder / name)
    return folder / name


def read(workdir, name, **more):
    """The converted config, its data where the tests have them."""
    data = DATA.get(name, lambda: {"data.dir": synthetic_people.data_dir()})()
    changes = [f"{field}={value}" for field, value in {**data, **more}.items()]
    return override_config(runs.read_config(workdir), changes)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[pytest.mark.slow] * (n in ("v1_gait", "v1_landmarks")))
        for n in NAMES
    ],
)
def test_a_converted_run_has_the_arrays_of_its_checkpoint(name, tmp_path):
    workdir = unpack(name, tmp_path)
    with pytest.raises(ValueError, match="is a run of version 1; .* convert it once"):
        runs.read_config(workdir)
    before = json.loads((workdir / "config.json").read_text())
    assert convert.convert_run(workdir)
    assert not convert.convert_run(workdir)  # once
    assert json.loads((workdir / "config.v1.json").read_text()) == before
    config = read(workdir, name)
    mesh = tiny.one_device()
    task = tasks.build(config, mesh)
    optimizer = make_optimizer(config.optimizer, steps=config.steps, steps_per_epoch=1)
    (meta,) = workdir.glob("checkpoints/*/meta/metadata")
    stored = json.loads(meta.read_text())
    state = abstract_state(task, mesh, optimizer.transformation)
    assert stored["arrays"] == fingerprint(state)
    assert runs.network_changes(stored["config"], config) == []
    assert set(task.evaluators) == {
        key.partition("/")[0].replace(".", "_")
        for key in json.loads((workdir / "eval.json").read_text())
        if key != "step"
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v1_digits", "v1_face_recognition"])
def test_a_converted_run_evaluates_to_its_own_numbers(name, tmp_path):
    workdir = unpack(name, tmp_path)
    convert.convert_run(workdir)
    expected = {
        key.replace("misaligned_0.5", "misaligned_0_5"): value
        for key, value in json.loads((workdir / "eval.json").read_text()).items()
        if not key.endswith("images_per_second")
    }
    config = read(workdir, name)
    found = evaluate(config, workdir, checkpoint="last")  # on another mesh
    found = {key: found[key] for key in expected}
    # A row at the edge between two answers may fall to either side.
    assert found == pytest.approx(expected, abs=3e-3)
    if name == "v1_face_recognition":
        names = ("aligned", "listed")
        again = evaluate_recognizer(
            config, load_recognizer(f"{workdir}@last"), evaluators=names
        )
        assert again["aligned/accuracy"] == found["aligned/accuracy"]
        assert again["listed/accuracy"] == found["listed/accuracy"]


@pytest.mark.slow
def test_a_converted_run_continues_as_it_went_on(tmp_path):
    workdir = unpack("v1_digits", tmp_path)
    convert.convert_run(workdir)
    log = [json.loads(line) for line in (workdir / "metrics.jsonl").open()]
    expected = {row["step"]: row["loss"] for row in log if "loss" in row}
    config = read(workdir, "v1_digits")
    assert loop.train(config, workdir)["step"] == 6
    log = [json.loads(line) for line in (workdir / "metrics.jsonl").open()]
    found = {row["step"]: row["loss"] for row in log if "loss" in row}
    assert list(found) == [1, 2, 3, 4, 5, 6]
    assert found == pytest.approx(expected, rel=1e-5)


FACES = dict(
    task="face_recognition",
    backbone="vit",
    model={},
    data={},
    checkpoint={"best_metric": "misaligned_0.5/accuracy"},
    evals=dict(
        every_steps=5, batch_size=8, in_training=["aligned", "misaligned_0.5"],
        split="train", identities=[8, 12], pairs=40, pairs_of="", severities=[0.5],
        alphas=[0.1], pair_sets=["listed"], unaligned="photos",
        alignment_shares=[0.0, 1.0], altered=["crop"], mirror="none", align=True,
        pooling="equal", protocols=["ijb:ijbc", "video:probes,a,b", "tinyface:t",
        "megaface:p,d"],
    ),
)  # fmt: skip


def test_every_field_of_version_1_has_its_entry():
    config = convert.convert_config(FACES)
    held_out = dict(split="train", identities=[8, 12])
    pairs = dict(type="verification", **held_out, pairs=40, mirror="none")
    protocol = dict(align=True, mirror="none")
    assert config["checkpoint"]["best_metric"] == "misaligned_0_5/accuracy"
    assert config["evals"] == {
        "every_steps": 5,
        "batch_size": 8,
        "in_training": ["aligned", "misaligned_0_5"],
        "aligned": pairs,
        "misaligned_0_5": {**pairs, "severity": 0.5},
        "swapped": {**pairs, "severity": 1.0, "keypoints": "swapped"},
        "aligned_noise": {**pairs, "alphas": [0.1]},
        "noise": {**pairs, "severity": 1.0, "alphas": [0.1]},
        "listed": dict(type="official_pairs", dataset="listed", mirror="none"),
        "identify_crop": dict(type="identification", queries="crop", **held_out),
        "partly_aligned": dict(
            type="partly_aligned", dataset="photos", shares=[0.0, 1.0], **held_out,
            pairs=40, mirror="none",
        ),
        "ijb_ijbc": dict(type="ijb", dataset="ijbc", fusion="average", **protocol),
        "video_probes_a_b": dict(
            type="video", probes="probes", galleries=["a", "b"], fusion="average",
            **protocol,
        ),
        "tinyface_t": dict(type="tinyface", dataset="t", **protocol),
        "megaface_p_d": dict(
            type="megaface", probes="p", distractors="d", **protocol
        ),
    }  # fmt: skip
    kinds = registry.EVALUATORS["faces"]
    for name, entry in config["evals"].items():
        if isinstance(entry, dict):
            fields = {field: entry[field] for field in entry if field != "type"}
            build = registry.resolve(kinds[entry["type"]])
            evaluators.check_fields(build, fields, name, entry["type"])


def test_the_input_of_a_network_is_its_own_section():
    config = json.loads(json.dumps(FACES))
    config["model"]["input_scale"] = 127.5 / 128
    converted = convert.convert_config(config)
    assert converted["input"] == {"scale": 128.0}
    assert "input_scale" not in converted["model"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "detection"}, "config.task must be one of .*; got 'detection'"),
        ({"evals": {**FACES["evals"], "pears": 1}}, "config.evals.pears is no field"),
        ({"backbone": dict(kind="x", weights="", trained=False, head=1)},
         "config.backbone.head is no field of version 1"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_refused_and_nothing_is_written(tmp_path, change, message):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(FACES | change))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        convert.convert_run(tmp_path)
    assert [*tmp_path.iterdir()] == [path]
    assert path.read_bytes() == before


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="must be the folder of a run"):
        convert.convert_run(tmp_path)
    (tmp_path / "config.json").write_text('{"version": 3}')
    with pytest.raises(ValueError, match="version 3; .* use a newer kprpe_jax"):
        convert.convert_run(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is damaged"):
        convert.convert_run(tmp_path)


def test_an_interrupted_conversion_is_repeated(tmp_path, monkeypatch):
    workdir = unpack("v1_face_recognition", tmp_path)
    before = (workdir / "config.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(convert, "_convert_log", lambda path: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            convert.convert_run(workdir)
    assert (workdir / "config.json").read_bytes() == before
    assert convert.convert_run(workdir)
    (step,) = Checkpoints(workdir).steps
    best = runs.read_config(workdir).checkpoint.best_metric
    assert best in Checkpoints(workdir).metrics(step)
