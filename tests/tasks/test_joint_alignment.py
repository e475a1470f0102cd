"""Recognition and alignment together, on a small imported data set with five points."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from kprpe_jax import tasks
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.configs import balanced_alignment
from kprpe_jax.configs.base import change_evaluators
from kprpe_jax.data.importers.dataset import write_dataset
from kprpe_jax.data.importers.image_folder import open_image_folder
from kprpe_jax.data.importers.landmarks import Landmarks, read_landmarks
from kprpe_jax.evaluation.misaligned import misalign
from kprpe_jax.losses.alignment import alignment_loss
from kprpe_jax.losses.class_sampling import SAMPLED
from kprpe_jax.recognizers import load_recognizer
from kprpe_jax.tasks import faces, joint_alignment, recognition
from kprpe_jax.training import loop
from kprpe_jax.training.checkpoint import restore_for_eval
from kprpe_jax.training.optimizer import decay_mask
from kprpe_jax.training.runs import check_origin, save_config
from kprpe_jax.training.state import abstract_state
from tests.tasks import synthetic_people, tiny

SIZE = synthetic_people.SIZE


def make_config(method="tps", **extra) -> ConfigDict:
    config = balanced_alignment.get_config(method)
    with config.unlocked():
        del config.data.builder
        change_evaluators(config, **synthetic_people.HELD_OUT)
    small = {
        "steps": 4,
        "data.dir": synthetic_people.data_dir(),
        "data.name": "people",
        "data.points": "keypoints",
        "data.num_keypoints": 5,
        "data.num_classes": 8,
        "data.train_identities": (0, 8),
        "data.image_shape": (SIZE, SIZE, 3),
        "data.batch_size": 16,
        "data.num_threads": 1,
        "augmentation.preset": "none",
        "augmentation.changes": ConfigDict(),
        "alignment.points": (0, 1, 2, 3, 4),
        "alignment.control": (2, 3),
        "alignment.localization": ConfigDict(dict(widths=(2, 2, 2), blocks=1)),
        "model.image_size": (SIZE, SIZE),
        "model.output_dim": 8,
        "optimizer.warmup": 0.0,
        "log.every_steps": 1,
        "evals.batch_size": 16,
        "evals.in_training": (),
        "checkpoint.best_metric": "",
    }
    if method == "kprpe":
        small |= {"model.patch_size": 8, "model.width": 16, "model.depth": 1}
        small |= {"model.num_heads": 2}
    else:
        small |= {"model.widths": (2, 2, 2, 2)}
    with config.unlocked():
        config.update_from_flattened_dict({**small, **extra})
    return config.lock()


@pytest.fixture(scope="module")
def stepped():
    """A task, its first variables, and the loss with its gradient on one batch."""
    config = make_config()
    task = tasks.build(config, tiny.one_device())
    variables = jax.jit(task.init)(jax.random.key(0))
    params = variables.pop("params")
    source, order = task.open_training(0)
    batch = tiny.batch_of(source, [order[place] for place in range(16)])

    def loss(params):
        return task.loss(params, variables, batch, jax.random.key(1), train=True)

    result = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return config, task, params, variables, batch, result


@pytest.mark.slow
def test_first_loss_is_recognition_plus_the_alignment_of_the_identity(stepped):
    config, _, params, _, batch, ((value, (_, metrics)), _) = stepped
    template = joint_alignment.make_template(config)
    weights = joint_alignment.landmark_weights(params, 5)
    np.testing.assert_allclose(weights, 0.9, atol=1e-3)
    want = alignment_loss(
        jnp.broadcast_to(template, batch["keypoints"].shape),
        batch["keypoints"],
        weights,
    )
    np.testing.assert_allclose(metrics["alignment_loss"], want.total, rtol=1e-4)
    np.testing.assert_allclose(
        value, metrics["recognition_loss"] + 3 * want.total, rtol=1e-4
    )


@pytest.mark.slow
def test_gradients_reach_all_parts_and_are_finite_at_the_identity(stepped):
    grads = stepped[-1][1]
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    for part in (
        grads["backbone"]["localization"]["out"],
        grads["backbone"]["backbone"]["stem_conv"],
        grads["alignment"]["template_keypoints"],
        grads["alignment"]["weight_logits"],
        grads["class_centers"],
    ):
        assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(part))


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({"alignment.learn_template": False}, {"weight_logits"}),
        ({"alignment.learn_weights": False}, {"template_keypoints"}),
        ({"alignment.learn_template": False, "alignment.learn_weights": False}, None),
    ],
)
def test_what_is_fixed_is_no_parameter(changes, left):
    config = make_config(**changes)
    task = tasks.build(config, tiny.one_device())
    params = jax.eval_shape(task.init, jax.random.key(0))["params"]
    assert params.get("alignment", {}).keys() == (left or set())
    # A template is points, which nothing may pull to the corner.
    assert not any(jax.tree.leaves(decay_mask(params.get("alignment", {}))))
    if left == {"template_keypoints"} or left is None:
        assert (joint_alignment.landmark_weights(params, 5) == 1).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"loss.margin_kind": "adaface"},
        pytest.param({"loss.sample_rate": 0.5}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_adaface_and_sampled_centers(changes):
    """What `recognition` keeps beside the weights is kept here, too."""
    task = tasks.build(make_config(**changes), tiny.one_device())
    variables = jax.eval_shape(task.init, jax.random.key(0))
    params = variables.pop("params")
    source, order = task.open_training(0)
    batch = tiny.batch_of(source, [order[place] for place in range(16)])
    if "loss.sample_rate" in changes:
        variables[SAMPLED] = task.sample_classes(batch, jax.random.key(1))
        rows = len(variables[SAMPLED].classes)
        assert rows < len(params["class_centers"])
        params["class_centers"] = jax.ShapeDtypeStruct((rows, 8), "float32")
    else:
        assert recognition.NORMS in variables
    loss = partial(task.loss, train=True)
    _, (new, metrics) = jax.eval_shape(
        loss, params, variables, batch, jax.random.key(2)
    )
    assert jax.tree.structure(new) == jax.tree.structure(variables)
    assert ("sampling_overflow" in metrics) == ("loss.sample_rate" in changes)


def test_methods_that_landmarks_give_have_no_localization_network():
    for method in ("none", "affine2d", "full_align"):
        config = make_config(method, **{"alignment.strength": 0.0})
        task = tasks.build(config, tiny.one_device())
        params = jax.eval_shape(task.init, jax.random.key(0))["params"]
        assert params["backbone"].keys() == {"backbone"}


def test_a_keypoint_transformer_behind_the_warp():
    """KP-RPE reads five of the landmarks, where the warp has brought them."""
    config = make_config("kprpe")
    assert config.alignment.after == "input"
    task = tasks.build(config, tiny.one_device())
    params = jax.eval_shape(task.init, jax.random.key(0))["params"]
    assert params["backbone"].keys() == {"backbone", "localization"}


def test_a_template_of_another_run(tmp_path):
    template = np.random.default_rng(0).random((5, 2)).astype(np.float32)
    np.savez(tmp_path / "template.npz", template=template)
    config = make_config(**{"alignment.template": str(tmp_path / "template.npz")})
    np.testing.assert_array_equal(joint_alignment.make_template(config), template)
    offset = {"alignment": {"template_keypoints": np.full((5, 2), 0.25)}}
    got = joint_alignment.learned_template(offset, template)
    np.testing.assert_allclose(got, template + 0.25)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alignment.method": "rigid"}, "method must be one of .*; got 'rigid'"),
        ({"alignment.after": "stage0"}, "got 'stage0'; there are .*stem_act"),
        ({"alignment.template": "absent.npz"}, "absent.npz must hold an array"),
        ({"data.points": "landmarks"}, "points must be a field of people; got"),
        (
            {"evals.aligned.identities": (4, 12)},
            "must be held-out identities of people;",
        ),
        ({"model.image_size": (16, 16)}, r"that of .*\(32, 32\); got \(16, 16\)"),
    ],
)
def test_faults_are_one_sentence(changes, message):
    config = make_config(**changes)

    def start():
        task = tasks.build(config, tiny.one_device())
        jax.eval_shape(task.init, jax.random.key(0))

    with pytest.raises(ValueError, match=message):
        start()


def test_flips_need_known_mirror_images():
    config = make_config()
    with config.unlocked():
        config.augmentation.changes = ConfigDict(dict(spatial=dict(flip_prob=0.5)))
        config.data.num_keypoints = 7
    with pytest.raises(ValueError, match="mirror images of 7 landmarks are not known"):
        faces.augmentation(config, tiny.one_device())


@pytest.fixture(scope="module")
def partly(tmp_path_factory):
    """The people with landmarks of every image but each person's last."""
    folder = tmp_path_factory.mktemp("partly")
    (folder / "images").mkdir()
    table = synthetic_people.write_images(folder / "images")
    last = f"/{synthetic_people.IMAGES - 1}.jpg"
    lines = table.read_text().splitlines()
    table.write_text("\n".join(line for line in lines if last not in line) + "\n")
    for name, landmarks in (
        ("partly", read_landmarks(table, units="fraction")),
        ("bare", None),
    ):
        write_dataset(
            open_image_folder(folder / "images"),
            name=name,
            data_dir=folder / "data",
            origin={"kind": "folder"},
            landmarks=landmarks,
            on_error="skip",  # of an image without landmarks: the landmarks alone
        )
    return str(folder / "data")


@pytest.mark.slow
def test_images_without_landmarks_teach_recognition_alone(partly):
    """Their zeros reach neither the template nor the alignment loss."""
    config = make_config("affine", **{"data.dir": partly, "data.name": "partly"})
    task = tasks.build(config, tiny.one_device())
    whole = joint_alignment.make_template(make_config("affine"))
    template = np.float32(task.origin["template"])
    assert 0.2 < template.min()  # a quarter of zeros would pull it to the corner
    assert whole.shape == template.shape
    variables = jax.jit(task.init)(jax.random.key(0))
    params = variables.pop("params")
    source, _ = task.open_training(0)
    batch = tiny.batch_of(source, range(16))
    known = batch["has_keypoints"]
    assert known.sum() == 12
    assert (batch["keypoints"][~known] == 0).all()

    @jax.jit
    def loss(params, batch):
        rng = jax.random.key(1)
        value, (_, metrics) = task.loss(params, variables, batch, rng, train=True)
        return value, metrics

    step = jax.jit(jax.value_and_grad(lambda p, b: loss(p, b), has_aux=True))
    (value, metrics), grads = step(params, batch)
    want = alignment_loss(
        jnp.broadcast_to(template, (12, 5, 2)),
        batch["keypoints"][known],
        joint_alignment.landmark_weights(params, 5),
    )
    np.testing.assert_allclose(metrics["alignment_loss"], want.total, rtol=1e-4)
    assert metrics["alignment_pixels"] == pytest.approx(float(want.distance), rel=1e-4)
    moved = {
        **batch,
        "keypoints": np.where(known[:, None, None], batch["keypoints"], 7),
    }
    np.testing.assert_array_equal(loss(params, moved)[0], value)
    # A batch without any: recognition learns, nothing is NaN.
    unlabeled = {**batch, "has_keypoints": np.zeros(16, bool)}
    (value, metrics), grads = step(params, unlabeled)
    assert value.dtype == np.float32
    assert metrics["alignment_pixels"] == 0
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    assert np.abs(grads["backbone"]["backbone"]["stem_conv"]["kernel"]).max() > 0
    assert (np.asarray(grads["alignment"]["template_keypoints"]) == 0).all()


@pytest.mark.slow
def test_single_landmarks_may_be_missing(tmp_path, rng):
    (tmp_path / "images").mkdir()
    synthetic_people.write_images(tmp_path / "images")
    source = open_image_folder(tmp_path / "images")
    names = [record.key for record in source.read(0)]
    points = rng.uniform(0.2, 0.8, (len(names), 7, 2)).astype(np.float32)
    points[rng.random(points.shape[:2]) < 0.3] = np.nan
    table = Landmarks({name: i for i, name in enumerate(names)}, points, "fraction")
    where = dict(name="seven", data_dir=tmp_path / "data", origin={})
    write_dataset(source, landmarks=table, on_error="skip", **where)
    config = make_config(
        "affine",
        **{"data.dir": str(tmp_path / "data"), "data.name": "seven"},
        **{"data.points": "landmarks", "data.num_keypoints": 7},
    )
    task = tasks.build(config, tiny.one_device())
    template = np.float32(task.origin["template"])
    assert template.shape == (7, 2)
    assert 0.2 < template.min() < template.max() < 0.8
    variables = jax.jit(task.init)(jax.random.key(0))
    params = variables.pop("params")
    batch = tiny.batch_of(task.open_training(0)[0], range(16))
    mask = batch["keypoint_mask"]
    assert 0.5 < mask.mean() < 0.9

    def loss(params, batch):
        rng = jax.random.key(1)
        value, (_, metrics) = task.loss(params, variables, batch, rng, train=True)
        return value, metrics

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, metrics), grads = step(params, batch)
    want = alignment_loss(
        jnp.broadcast_to(template, (16, 7, 2)),
        batch["keypoints"],
        joint_alignment.landmark_weights(params, 7),
        mask,
    )
    np.testing.assert_allclose(metrics["alignment_loss"], want.total, rtol=1e-4)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    moved = np.where(mask[..., None], batch["keypoints"], 7)
    (other, _), _ = step(params, {**batch, "keypoints": moved})
    np.testing.assert_array_equal(other, value)


def test_who_needs_landmarks(partly):
    config = make_config("affine2d", **{"data.dir": partly, "data.name": "partly"})
    source, _ = tasks.build(config, tiny.one_device()).open_training(0)
    with pytest.raises(ValueError, match="every image must have keypoints where a net"):
        source.__getitems__(range(16))
    bare = {"data.dir": partly, "data.name": "bare"}
    with pytest.raises(ValueError, match="no training image of bare has landmarks to"):
        tasks.build(make_config("affine", **bare), tiny.one_device())
    plain = make_config("affine", **bare, **{"alignment.strength": 0.0})
    tasks.build(plain, tiny.one_device())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["affine2d", "kprpe", "affine"])
def test_a_run_is_a_recognizer_without_its_data(method, tmp_path):
    """Embeddings are those of the task; the template was saved with the run."""
    config = make_config(method, steps=1, **{"evals.every_steps": 1})
    loop.train(config, tmp_path / "run")
    task = tasks.build(config, tiny.one_device())
    state = restore_for_eval(
        tmp_path / "run", "last", abstract_state(task, tiny.one_device()), config
    )
    with config.unlocked():
        config.data.dir = "nowhere"
    save_config(config, tmp_path / "run")  # its data are gone
    recognizer = load_recognizer(str(tmp_path / "run"))
    assert recognizer.uses_keypoints == (method != "affine")
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (2, SIZE, SIZE, 3)).astype(np.float32)
    points = rng.uniform(0.2, 0.8, (2, 5, 2)).astype(np.float32)
    got = jax.jit(Recognizer.features)(recognizer, images, points)
    template = np.float32(task.origin["template"])
    model = joint_alignment.make_network(config, template)
    variables = {"params": state.params["backbone"], **state.collections}
    want = jax.jit(model.apply)(variables, images, points)
    np.testing.assert_allclose(got.embeddings, want, rtol=1e-4, atol=1e-6)
    assert got.patches.shape[:2] == (2, np.prod(recognizer.grid))
    if method == "affine2d":
        other = dict(task.origin, template=[[0, 0]] * 5)
        with pytest.raises(ValueError, match="began on other data: their template dif"):
            check_origin(tmp_path / "run", other)


@pytest.mark.slow
def test_trains_evaluates_and_aligns(tmp_path):
    """L_align falls, and an evaluator's ANME before is that of the rows themselves."""
    config = make_config(
        "affine",
        steps=40,
        **{
            "optimizer.learning_rate": 3e-3,
            "evals.in_training": ("aligned", "misaligned_1"),
            "evals.every_steps": 40,
        },
    )
    results = loop.train(config, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    pixels = [row["alignment_pixels"] for row in rows if "alignment_pixels" in row]
    assert pixels[-1] < pixels[0]
    assert results["aligned/count"] == 16
    assert 0 <= results["misaligned_1/rank_1"] <= 1
    source = faces.open_people(config, "train", (8, 12))
    points = np.stack([source[i]["keypoints"] for i in range(16)])
    d = np.linalg.norm(points[:, 0] - points[:, 1], axis=-1).mean()
    want = np.linalg.norm(points - points.mean(0), axis=-1).mean() / d
    np.testing.assert_allclose(results["aligned/anme_before"], want, rtol=1e-4)
    images = jnp.zeros((16, SIZE, SIZE, 3))
    rng = jax.random.fold_in(jax.random.key(0), 0)
    moved = np.asarray(misalign(rng, images, points, 1.0)[1], np.float64)
    d = np.linalg.norm(moved[:, 0] - moved[:, 1], axis=-1).mean()
    want = np.linalg.norm(moved - moved.mean(0), axis=-1).mean() / d
    np.testing.assert_allclose(results["misaligned_1/anme_before"], want, rtol=1e-4)
