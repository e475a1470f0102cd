import json

import pytest
from ml_collections import ConfigDict

from kprpe_jax.training import config as config_lib
from kprpe_jax.training import runs
from tests.training import toy

FILE = toy.__file__


def test_loads_with_argument_and_overrides():
    config = config_lib.load_config(
        f"{FILE}:other",
        ["steps=7", "optimizer.learning_rate=1", "mesh.class=2", "steps=8"],
    )
    assert config.task == "other"
    assert config.steps == 8
    assert config.optimizer.learning_rate == 1.0
    assert config.mesh["class"] == 2
    assert config.is_locked


def test_tuples_and_booleans_are_read_as_their_type(tmp_path):
    path = tmp_path / "c.py"
    path.write_text(
        "from tests.training import toy\n"
        "def get_config():\n"
        "    config = toy.make_config()\n"
        "    with config.unlocked():\n"
        "        config.flag = True\n"
        "    return config\n"
    )
    overrides = ["optimizer.boundaries=(3, 5)", "flag=false"]
    config = config_lib.load_config(str(path), overrides)
    assert config.optimizer.boundaries == (3, 5)
    assert config.flag is False
    with pytest.raises(ValueError, match="flag must be of type bool; got 'maybe'"):
        config_lib.load_config(str(path), ["flag=maybe"])
    with pytest.raises(ValueError, match="get_config.. of .* takes no argument; got x"):
        config_lib.load_config(f"{path}:x")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "optimizer.lerning_rate=1",
            "no field .*; the nearest is optimizer.learning_ra",
        ),
        (
            "batch_size=1",
            "there is no field batch_size; the nearest is data.batch_size",
        ),
        ("steps.x=1", "there is no field steps.x; the nearest is steps"),
        ("steps=1.5", "steps must be of type int; got '1.5'"),
        ("optimizer.warmup=soon", "optimizer.warmup must be of type float; got 'soon'"),
        ("optimizer.boundaries=3", "boundaries must be of type tuple; got '3'"),
        ("mesh=4", "mesh is a section; override one of its fields: mesh.class, mesh.d"),
        ("steps=0", "steps must be at least 1; got 0"),
        ("steps", "steps has no value; write --config.steps="),
        ("checkpoint.best_mode=up", "best_mode must be max or min; got 'up'"),
    ],
)
def test_bad_override_is_one_sentence(override, message):
    with pytest.raises(ValueError, match=message) as caught:
        config_lib.load_config(FILE, [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file, and no config of that name; .* the nearest is"),
        ("def get_config(:\n", "line 1 is not Python"),
        ("x = 1\n", "has no get_config"),
        ("def get_config():\n    return 3\n", "must return a ConfigDict; got int"),
        (
            "from ml_collections import ConfigDict\n"
            "def get_config():\n    return ConfigDict({'task': 'x'})\n",
            "config: seed is missing; set it to a value of type int",
        ),
    ],
)
def test_bad_file_is_one_sentence(tmp_path, text, message):
    path = tmp_path / "c.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=message):
        config_lib.load_config(str(path))


def test_a_config_is_found_by_its_name():
    by_name = config_lib.load_config("digits:absolute", ["steps=7"])
    assert by_name.model.position == "absolute"
    by_path = config_lib.load_config("configs/digits.py:absolute", ["steps=7"])
    assert by_name == by_path
    with pytest.raises(ValueError, match="--config digit: .* the nearest is digits"):
        config_lib.load_config("digit")


def test_evaluators_are_overridden_and_added():
    config = config_lib.load_config(
        "lfw",
        [
            "evals.aligned.pairs=20",
            "evals.aligned.mirror=none",  # a field that the config leaves out
            "evals.swapped.alphas=(0.1, 0.2)",
            "evals.listed.type=official_pairs",
            "evals.listed.dataset=lfw",
        ],
    )
    assert (config.evals.aligned.pairs, config.evals.aligned.mirror) == (20, "none")
    assert config.evals.swapped.alphas == (0.1, 0.2)
    assert config.evals.listed.to_dict() == dict(type="official_pairs", dataset="lfw")
    for override, message in (
        ("evals.aligned.pears=2", "no field evals.aligned.pears; the nearest is"),
        ("evals.aligned.mirror.x=2", "no field evals.aligned.mirror.x"),
        ("evals.listed.dataset=lfw", "no field evals.listed.dataset; the nearest"),
        ("evals.listed.type=pairs", "no type 'pairs'; the nearest is matched_pairs"),
        ("evals.aligned.severity=x", "severity must be of type float; got 'x'"),
    ):
        with pytest.raises(ValueError, match=message):
            config_lib.load_config("lfw", [override])


def test_runs_of_other_versions(tmp_path):
    runs.save_config(toy.make_config(), tmp_path)
    config = runs.read_config(tmp_path)
    assert config.evals.in_training == ("clean",)  # a tuple, as in the config
    assert config_lib.override_config(config, ["steps=9"]).steps == 9
    path = tmp_path / "config.json"
    for version, message in (
        (None, "is a run of version 1; .* reads version 2; convert it once: kprpe-jax"),
        (3, "is a run of version 3; .* or a newer one"),
    ):
        stored = json.loads(path.read_text())
        del stored["version"]
        path.write_text(json.dumps(stored | ({"version": version} if version else {})))
        for read in (
            runs.read_config,
            lambda folder: runs.check_workdir(toy.make_config(), folder),
        ):
            with pytest.raises(ValueError, match=message):
                read(tmp_path)
        path.write_text(json.dumps(stored | {"version": 2}))


@pytest.mark.parametrize(("old", "new"), [("norm", "norm"), ("equal", "average")])
def test_pooling_of_older_runs_is_fusion(tmp_path, old, new):
    """Protocols' field `pooling` has become `fusion`; the file stays as it is."""
    entry = dict(type="ijb", dataset="ijbc")
    runs.save_config(toy.make_config(), tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    stored["evals"]["x"] = {**entry, "pooling": old}
    (tmp_path / "config.json").write_text(json.dumps(stored))
    config = toy.make_config()
    with config.unlocked():
        config.evals.x = ConfigDict({**entry, "fusion": new})
    before = (tmp_path / "config.json").read_bytes()
    assert runs.read_config(tmp_path).evals.x.to_dict() == entry | {"fusion": new}
    assert runs.check_workdir(config, tmp_path) == []
    assert (tmp_path / "config.json").read_bytes() == before


def test_field_of_another_type_in_the_file():
    config = toy.make_config()
    with config.unlocked():
        del config.steps
        config.steps = "20"
    with pytest.raises(ValueError, match="steps must be of type int; got '20'"):
        config_lib.check_config(config)


def test_workdir_keeps_config_and_versions(tmp_path):
    config = toy.make_config()
    assert runs.check_workdir(config, tmp_path / "new") == []
    runs.save_config(config, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["steps"] == 20
    versions = json.loads((tmp_path / "versions.json").read_text())
    assert {"jax", "flax", "optax", "orbax-checkpoint", "python"} <= set(versions)
    assert versions["device_kind"] == "cpu"
    assert runs.check_workdir(config, tmp_path) == []


def test_workdir_of_another_config(tmp_path):
    runs.save_config(toy.make_config(), tmp_path)
    with pytest.raises(
        ValueError, match="optimizer.weight_decay is 0.05 while this config has 0.1; ta"
    ):
        runs.check_workdir(
            toy.make_config(**{"optimizer.weight_decay": 0.1, "steps": 30}), tmp_path
        )
    with pytest.raises(ValueError, match="steps is 20 while this config has 30"):
        runs.check_workdir(toy.make_config(steps=30), tmp_path)


def test_some_fields_may_change(tmp_path):
    runs.save_config(toy.make_config(), tmp_path)
    other = toy.make_config(**{"mesh.fsdp": 2, "data.dir": "/x", "log.every_steps": 9})
    changes = runs.check_workdir(other, tmp_path)
    assert changes == [
        "data.dir: '' -> '/x'",
        "log.every_steps: 1 -> 9",
        "mesh.fsdp: 1 -> 2",
    ]


def test_workdir_that_is_no_folder_or_is_damaged(tmp_path):
    (tmp_path / "f").write_text("")
    with pytest.raises(ValueError, match="is a file; name a folder"):
        runs.check_workdir(toy.make_config(), tmp_path / "f")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is not JSON"):
        runs.check_workdir(toy.make_config(), tmp_path)


def test_what_makes_another_network():
    fields = {
        "task": "recognition",
        "backbone": "cnn",
        "backbone_weights": "here.npz",
        "model": {
            "attention": "xla",
            "sizes": (1, 2),
            "pool": "flatten",
            "position_options": {"anchor_width": 0.0},
        },
        "data": {"name": "faces", "num_classes": 10},
        "evals": {"pairs": 3},
    }
    stored = json.loads(json.dumps(fields))

    def changes(**changed):
        config = ConfigDict(fields)
        config.update_from_flattened_dict(changed)
        return runs.network_changes(stored, config)

    free = {"backbone_weights": "there.npz", "model.attention": "pallas"}
    assert changes(**free, **{"data.name": "others", "evals.pairs": 4}) == []
    # The initialization of the position tables does not matter any more.
    assert changes(**{"model.position_options.anchor_width": 0.07}) == []
    # "norm" is no other way to compute "xla".
    for field, value in (
        ("task", "gait"),
        ("backbone", "vit"),
        ("model.attention", "norm"),
        ("model.sizes", (1, 3)),
        ("model.pool", "mean"),
        ("data.num_classes", 9),
    ):
        (change,) = changes(**{field: value})
        assert change.startswith(f"{field} is ")
    del stored["model"]["pool"]
    assert changes() == ["model.pool is 'absent' in the run and 'flatten' here"]
