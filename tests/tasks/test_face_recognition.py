"""Recognition on an imported data set, with every loss and backbone."""

import dataclasses
import json
import types

import jax
import numpy as np
import pytest

from kprpe_jax import tasks
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.configs import lfw_iresnet
from kprpe_jax.configs.base import verification_evaluators
from kprpe_jax.core.mesh import make_mesh
from kprpe_jax.data.importers.dataset import write_dataset
from kprpe_jax.data.importers.image_folder import open_image_folder
from kprpe_jax.data.importers.landmarks import read_landmarks
from kprpe_jax.losses.class_sampling import SAMPLED, take_rows
from kprpe_jax.recognizers import load_recognizer
from kprpe_jax.tasks import networks, recognition
from kprpe_jax.training import loop
from kprpe_jax.training.checkpoint import restore_for_eval
from kprpe_jax.training.evaluate import evaluate, evaluate_recognizer
from kprpe_jax.training.state import abstract_state
from kprpe_jax.weights import export_weights, import_weights
from tests.tasks import synthetic_people, tiny

PARTLY_ALIGNED = dict(
    type="partly_aligned", dataset="people", identities=(8, 12), pairs=40
)
VIDEO = dict(type="video", probes="people", galleries=("gallery",))
MEGAFACE = dict(type="megaface", probes="people", distractors="gallery")


def first_batch(task, rows=16):
    source, order = task.open_training(0)
    return tiny.batch_of(source, [order[place] for place in range(rows)])


@pytest.mark.slow
def test_trains_evaluates_and_learns(tmp_path):
    people = synthetic_people.HELD_OUT
    entries = verification_evaluators((1.0,), (0.0, 0.1), **people) | {
        "partly_aligned": PARTLY_ALIGNED,
        "video": VIDEO,
        "plain": dict(type="identification", identities=people["identities"]),
    }
    entries["crop"] = {**entries["plain"], "queries": "crop"}
    config = synthetic_people.make_config(
        entries,
        steps=30,
        **{"optimizer.learning_rate": 3e-3, "evals.in_training": ("aligned",)},
    )
    loop.train(config, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < 0.5 * losses[0]
    results = evaluate(config, tmp_path, checkpoint="last")
    assert results["aligned/pairs"] == 40
    # Patterns of people that it never saw: well above chance when they lie straight.
    assert results["aligned/accuracy"] > 0.75
    assert 0.4 < results["misaligned_1/accuracy"] <= 1
    assert results["noise/uniform_0"] == results["misaligned_1/accuracy"]
    assert {"swapped/accuracy", "aligned_noise/scale_0.1"} < set(results)
    # At most two pairs for each that there is: 4 people with 6 genuine ones.
    assert results["partly_aligned/pairs"] == 40
    assert 0.4 < results["partly_aligned/0.25"] <= 1
    assert results["video/rank_1"] == 1  # the same photos
    # The same pattern is found again; of a crop less is left.
    assert results["plain/p_at_1"] > 0.75
    assert 0 < results["crop/p_at_1"] <= results["plain/p_at_1"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"loss.margin_kind": "adaface", "loss.margin": 0.4},
        {"loss.margin_kind": "curricularface", "loss.sample_rate": 0.5},
        {"augmentation.preset": "kprpe"},
    ],
    ids=str,
)
def test_losses_and_augmentation_have_finite_gradients(changes):
    task = tasks.build(synthetic_people.make_config(**changes), tiny.one_device())
    variables = task.init(jax.random.key(0))
    params = variables.pop("params")
    batch = first_batch(task)
    if task.sample_classes is not None:
        sample = task.sample_classes(batch, jax.random.key(2))
        assert len(sample.classes) < len(params["class_centers"])
        variables[SAMPLED] = sample
        taken = take_rows(params["class_centers"], sample.rows, tiny.one_device())
        params["class_centers"] = taken

    def loss(params, rng):
        return task.loss(params, variables, batch, rng, train=True)

    value, grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(
        params, jax.random.key(1)
    )
    assert np.isfinite(value[0])
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    new, metrics = value[1]
    assert ("sampling_overflow" in metrics) == ("loss.sample_rate" in changes)
    assert jax.tree.structure(new) == jax.tree.structure(variables)
    if "adaface" in changes.values():  # the statistics moved, and are part of the state
        old, moved = variables[recognition.NORMS], new[recognition.NORMS]
        assert moved.mean != old.mean
        assert moved.std != old.std
    if "curricularface" in changes.values():
        old, moved = variables[recognition.TARGETS], new[recognition.TARGETS]
        assert moved["mean"] != old["mean"]


def test_an_iresnet_reads_no_keypoints():
    config = synthetic_people.make_config()
    fields = dict(
        stage_sizes=(1, 1, 1, 1), image_size=(32, 32), output_dim=8, dtype="float32"
    )
    with config.unlocked():
        config.backbone = "iresnet"
        del config.model
        config.model = fields
    task = tasks.build(config, tiny.one_device())
    variables = jax.eval_shape(task.init, jax.random.key(0))
    assert variables["params"]["class_centers"].shape == (256, 8)
    assert "stages_0_0" in variables["params"]["backbone"]


def test_a_config_without_evaluators_has_nothing_to_evaluate(tmp_path):
    config = synthetic_people.make_config({})
    with pytest.raises(ValueError, match="must name something to evaluate .* nothing"):
        evaluate(config, tmp_path)


def small_iresnet(**extra):
    """configs/lfw_iresnet.py on the synthetic people, as small as it gets."""
    config = lfw_iresnet.get_config("ir18")
    small = synthetic_people.make_config(**extra).copy_and_resolve_references()
    with small.unlocked():
        small.backbone, small.model = config.backbone, config.model
        small.model.update(
            dict(
                stage_sizes=(1, 1, 1, 1),
                widths=(4, 4, 4, 8),
                image_size=(32, 32),
                output_dim=8,
            )
        )
    return small


@pytest.mark.slow
def test_the_iresnet_config_trains_and_evaluates_and_reads_official_weights(tmp_path):
    config = small_iresnet(**{"evals.in_training": ("aligned",)})
    results = loop.train(config, tmp_path)
    assert results["aligned/pairs"] == 40
    evaluated = evaluate(config, tmp_path, checkpoint="last", evaluators=("aligned",))
    assert evaluated["aligned/accuracy"] == results["aligned/accuracy"]
    task = tasks.build(config, make_mesh(config.mesh))
    state = restore_for_eval(
        tmp_path, "last", abstract_state(task, make_mesh(config.mesh)), config
    )
    backbone = {"params": state.params["backbone"], **state.collections}
    model = networks.make_network(config)
    np.savez(tmp_path / "weights.npz", **export_weights(model, backbone))
    variables = import_weights(model, str(tmp_path / "weights.npz"))
    spec = networks.input_spec(config, model)
    published = evaluate_recognizer(config, Recognizer(variables, model, spec, "ir"))
    assert published["aligned/accuracy"] == results["aligned/accuracy"]
    ours = load_recognizer(f"{tmp_path}@last")
    assert evaluate_recognizer(config, ours, evaluators=("aligned",)) == {
        name: value for name, value in evaluated.items() if name != "step"
    }


def test_evaluators_that_the_config_names():
    entries = verification_evaluators((1.0,), **synthetic_people.HELD_OUT)
    more = dict(partly_aligned=PARTLY_ALIGNED, megaface=MEGAFACE, video=VIDEO)
    config = synthetic_people.make_config(entries | more)
    task = tasks.build(config, tiny.one_device())
    assert set(task.evaluators) == {
        "aligned", "misaligned_1", "swapped", "partly_aligned", "megaface", "video",
    }  # fmt: skip
    config = synthetic_people.make_config(**{"model.position": "absolute"})
    task = tasks.build(config, tiny.one_device())
    assert set(task.evaluators) == {"aligned", "misaligned_1"}


@pytest.mark.slow
def test_official_pairs_under_conditions():
    entries = verification_evaluators(dataset="listed") | {
        "listed": dict(type="official_pairs", dataset="listed"),
        "partly_aligned": dict(type="partly_aligned", dataset="listed", shares=(0.5,)),
    }
    config = synthetic_people.make_config(entries)
    task = tasks.build(config, tiny.one_device())
    variables = task.init(jax.random.key(0))
    params = variables.pop("params")
    state = types.SimpleNamespace(params=params, collections=variables)
    results = {
        name: evaluate(task.recognizer(state), tiny.one_device())
        for name, evaluate in task.evaluators.items()
    }
    assert set(results) == {
        "aligned", "swapped", "listed", "partly_aligned",
    }  # fmt: skip
    assert {r["pairs"] for r in results.values()} == {2 * synthetic_people.PEOPLE}
    # The same pairs of the same photos, in three folds.
    assert results["aligned"]["accuracy"] == results["listed"]["accuracy"]
    assert results["aligned"]["std"] == results["listed"]["std"]


def test_training_people_are_not_those_of_the_evaluators():
    task = tasks.build(synthetic_people.make_config(), tiny.one_device())
    source, _ = task.open_training(0)
    assert len(source) == 8 * synthetic_people.IMAGES
    assert set(source.labels()) == set(range(8))


def test_a_keypoint_encoding_refuses_rows_without_keypoints(tmp_path):
    (tmp_path / "images").mkdir()
    synthetic_people.write_images(tmp_path / "images")
    source = open_image_folder(tmp_path / "images")
    write_dataset(source, name="unmarked", data_dir=tmp_path, origin={})
    for position, refused in (("kprpe_relative", True), ("rpe", False)):
        config = synthetic_people.make_config(**{"model.position": position})
        config.data.dir, config.data.name = str(tmp_path), "unmarked"
        task = tasks.build(config, tiny.one_device())
        if not refused:
            assert not first_batch(task)["has_keypoints"].any()
            continue
        with pytest.raises(ValueError, match="must have keypoints .* got none in row"):
            first_batch(task)
        state = types.SimpleNamespace(params={"backbone": None}, collections={})
        with pytest.raises(ValueError, match="must have keypoints .* got none in row"):
            task.evaluators["aligned"](task.recognizer(state), tiny.one_device())


@pytest.fixture(scope="module")
def undetected(tmp_path_factory):
    """A folder of data sets in which one face was not detected, with pairs and not."""
    folder = tmp_path_factory.mktemp("undetected")
    (folder / "images").mkdir()
    table = synthetic_people.write_images(folder / "images")
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(x for x in lines if not x.startswith("person00/1.jpg")))
    source = open_image_folder(folder / "images")
    points = read_landmarks(table, units="fraction")
    for name, pairs in (("plain", {}), ("listed", synthetic_people.official_pairs())):
        write_dataset(
            dataclasses.replace(source, tables=pairs),
            name=name, data_dir=folder, origin={}, landmarks=points, on_error="skip",
        )  # fmt: skip
    return str(folder)


@pytest.mark.parametrize(
    ("entry", "changes", "images"),
    [
        (dict(type="official_pairs", dataset="listed"), {}, 24),
        (dict(type="megaface", probes="plain", distractors="listed"), {}, 48),
        (dict(type="megaface", probes="plain", distractors="listed", align=True),
         {"model.position": "rpe"}, 48),
        (dict(type="video", probes="plain", galleries=("listed",),
              fusion="landmark_score"), {"model.position": "rpe"}, 48),
        (dict(type="partly_aligned", dataset="listed"), {"model.position": "rpe"}, 24),
        (dict(type="partly_aligned", dataset="plain", pairs=400),
         {"model.position": "rpe", "data.name": "listed"}, 48),
    ],
)  # fmt: skip
def test_an_undetected_face_is_known_before_any_is_embedded(
    undetected, entry, changes, images
):
    config = synthetic_people.make_config(
        {"x": entry}, **{"data.dir": undetected, **changes}
    )
    match = f"must have keypoints .* got 1 of {images} images without; fill them"
    with pytest.raises(ValueError, match=match):
        tasks.build(config, tiny.one_device())


def test_identity_balanced_and_repeated_rows():
    config = synthetic_people.make_config(
        **{"data.images_per_identity": 4, "data.repeat_probability": 0.0}
    )
    task = tasks.build(config, tiny.one_device())
    labels = first_batch(task)["label"].reshape(4, 4)
    assert (labels == labels[:, :1]).all()
    config = synthetic_people.make_config(**{"data.repeat_probability": 1.0})
    task = tasks.build(config, tiny.one_device())
    ids = first_batch(task)["id"].reshape(8, 2)
    assert (ids[:, 0] == ids[:, 1]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "vgg"}, "unknown config.backbone 'vgg'; did you mean"),
        ({"backbone": "iresnet"},
         "fields of IResNet; got others: absolute, .*; and without: stage_sizes; take"),
        ({"backbone": "mobilefacenet"},
         r"fields of MobileFaceNet; got others: absolute, .*: \(none\); take a config"),
        ({"model.dtype": "bf16"}, "dtype must be one of float32, bfl.* got 'bf16'"),
        ({"model.dtype": "int32"}, "dtype must be one of float32, .* got 'int32'"),
        ({"model.num_heads": 0}, "config.model.num_heads must be at least 1; got 0"),
        ({"model.patch_size": 0}, "model.patch_size must be at least 1; got 0"),
        ({"model.depth": 0}, "config.model.depth must be at least 1; got 0"),
        ({"model.output_dim": 0}, "model.output_dim must be at least 1; got 0"),
        ({"model.image_size": (0, 32)}, r"size must be at least 1; got \(0, 32\)"),
        ({"model.image_size": (16, 16)}, r"that of .*\(32, 32\); got \(16, 16\)"),
        ({"model.position_options.num_keypoints": 6}, r"1 \.\. .* = 5; got 6"),
        ({"evals.swapped.identities": (20, 30)},
         r"must lie in 20 \.\. 29; got 0 \.\. 11"),
        ({"augmentation.preset": "strong"}, "got 'strong'"),
        ({"data.train_identities": (0,)}, r"must be \(first, last\), .*; got \(0,\)"),
        ({"evals.swapped.identities": (1, 2, 3)},
         r"identities must be \(first, .*; got \(1"),
        ({"evals.misaligned_1.severity": 4.0}, r"must lie in \[0, 4\), .*; got 4.0"),
        ({"loss.margin_kind": "adaface", "loss.norm_momentum": 7.0},
         r"norm_momentum, the weight of a batch, must lie in \(0, 1\]; got 7.0"),
        ({"loss.margin_kind": "adaface", "loss.concentration": -3.0},
         "concentration must be a finite number above 0; got -3.0"),
        ({"evals.aligned.identities": (7, 12)}, r"held-out identities .* \(7, 12\)"),
        ({"evals.swapped.identities": ()}, r"config.evals.swapped: identities must be "
         r"held-out .*; got \(\), and .* \(0, 8\) of the same"),
        ({"evals.aligned.type": "verify"}, "no type 'verify'; the nearest is verific"),
        ({"data.image_shape": (16, 16, 3), "model.image_size": (16, 16)},
         "images must be 16 x 16 pixels; got 32 x 32 in row"),
    ],
)  # fmt: skip
def test_faults_are_one_sentence(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        loop.train(synthetic_people.make_config(**changes), tmp_path / "w")
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (dict(type="identification"), r"held-out identities of people; got \(\)"),
        (dict(type="partly_aligned", dataset="people"), r"held-out .*; got \(\)"),
        (PARTLY_ALIGNED | dict(shares=(0.0, 1.5)), r"shares must lie in .* got 1.5"),
        (PARTLY_ALIGNED | dict(share=0.5), "no such field; the nearest is shares"),
        (dict(dataset="people"), "config.evals.x must have a type, one of verificati"),
    ],
)
def test_faults_of_entries_are_one_sentence(entry, message):
    config = synthetic_people.make_config({"x": entry})
    with pytest.raises(ValueError, match=message):
        tasks.build(config, tiny.one_device())


@pytest.mark.slow
def test_eight_devices_agree_with_one(tmp_path):
    config = synthetic_people.make_config(**{"model.activation": "gelu"})
    task = tasks.build(config, tiny.one_device())
    mesh = make_mesh({"data": 2, "fsdp": 2, "class": 2})
    spread = tasks.build(config, mesh)
    variables = task.init(jax.random.key(0))
    params = variables.pop("params")
    batch = first_batch(task)
    rng = jax.random.key(1)
    one, many = (
        jax.jit(lambda p, t=t: t.loss(p, variables, batch, rng, train=True)[0])(params)
        for t in (task, spread)
    )
    np.testing.assert_allclose(one, many, rtol=1e-5)
