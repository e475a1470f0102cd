"""Both tasks: what they build, that they learn, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.io
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from kprpe_jax import tasks
from kprpe_jax.data.keypoints import box_keypoints
from kprpe_jax.data.store import open_split
from kprpe_jax.losses.class_centers import padded_classes
from kprpe_jax.position.encoding import KEYPOINT_FORMS, POSITIONS
from kprpe_jax.tasks import networks
from kprpe_jax.tasks.classification import Classifier
from kprpe_jax.training import loop
from kprpe_jax.training.state import abstract_state
from tests.meshes import mesh_of
from tests.quick import quick_jit
from tests.tasks import tiny

slow = pytest.mark.slow
TASKS = ("classification", "recognition")
LOSS_KEY = jax.random.key(1)
EVERYDAY = ("absolute_drawn", "irpe", "kprpe_multihead")  # the others compile alike


def build(kind="classification", **overrides):
    return tasks.build(tiny.make_config(kind, **overrides), tiny.one_device())


@pytest.fixture(scope="module")
def batch():
    source = open_split(tiny.data_dir(), "digits", "train")
    return tiny.batch_of(source, range(16))


def random_variables(task):
    """Parameters and collections without a compiled `init`; no table is zero."""
    rng = np.random.default_rng(0)

    def draw(leaf):
        return (0.2 * rng.standard_normal(leaf.shape) + 0.1).astype(leaf.dtype)

    variables = jax.tree.map(draw, jax.eval_shape(task.init, jax.random.key(0)))
    variables["batch_stats"] = jax.tree.map(np.abs, variables["batch_stats"])
    return variables.pop("params"), variables


def shapes_of(task):
    variables = jax.eval_shape(task.init, jax.random.key(0))
    return jax.tree.map(lambda leaf: leaf.shape, variables)


def test_classification_has_a_backbone_and_a_linear_layer():
    shapes = shapes_of(build())
    assert set(shapes) == {"params", "batch_stats"}
    assert set(shapes["params"]) == {"backbone", "classifier"}
    assert shapes["params"]["classifier"] == {"kernel": (16, 10), "bias": (10,)}
    assert shapes["params"]["backbone"]["position_embedding"] == (25, 16)


def test_recognition_has_a_backbone_and_padded_centers_split_by_class():
    task = build("recognition")
    shapes = shapes_of(task)
    assert set(shapes) == {"params", "batch_stats"}
    assert set(shapes["params"]) == {"backbone", "class_centers"}
    assert shapes["params"]["class_centers"] == (padded_classes(10), 16)
    assert task.sharding_rules == ((r"class_centers", P("class")),)


@pytest.mark.parametrize("size", [-1, 3])
def test_centers_are_padded_for_the_axis_that_the_mesh_has(size):
    """Of three devices, called 3 or the rest."""
    config = tiny.make_config("recognition", **{"mesh.data": 1, "mesh.class": size})
    mesh = mesh_of(1, 1, 3)
    state = abstract_state(tasks.build(config, mesh), mesh)
    assert state.params["class_centers"].shape == (768, 16)


@slow
@pytest.mark.parametrize("kind", ["classification", "recognition"])
def test_learns_a_batch_by_heart(kind, batch):
    task = build(kind)
    rule = optax.adam(3e-3)

    @quick_jit
    def run():
        variables = dict(task.init(jax.random.key(0)))
        params = variables.pop("params")

        def step(carry, _):
            params, collections, state = carry
            (value, (collections, metrics)), grads = jax.value_and_grad(
                task.loss, has_aux=True
            )(params, collections, batch, LOSS_KEY, train=True)
            updates, state = rule.update(grads, state)
            params = optax.apply_updates(params, updates)
            return (params, collections, state), (value, metrics)

        carry = params, variables, rule.init(params)
        (_, collections, _), history = jax.lax.scan(step, carry, length=40)
        return variables, collections, history

    before, after, (losses, metrics) = jax.device_get(run())
    assert np.isfinite(losses).all()
    assert losses.dtype == np.float32
    assert losses[-1] < 0.5 * losses[0]
    assert metrics["accuracy"][-1] > metrics["accuracy"][0]
    assert metrics["accuracy"][-1] > 0.8
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max() > 0, before, after)
    assert all(jax.tree.leaves(moved))  # the batch statistics are handed on


@pytest.mark.parametrize("kind", TASKS)
def test_augmentation_follows_the_key_and_evaluation_statistics_stay(kind, batch):
    task = build(kind)
    params, before = random_variables(task)

    @quick_jit
    def run(rng):
        value, (after, _) = task.loss(params, before, batch, rng, train=False)
        return value, after

    one, after = run(jax.random.key(0))
    assert one != run(jax.random.key(1))[0]
    assert one == run(jax.random.key(0))[0]
    jax.tree.map(np.testing.assert_array_equal, before, after)


@pytest.mark.parametrize(
    "position",
    [pytest.param(p, marks=() if p in EVERYDAY else slow) for p in POSITIONS],
)
def test_every_encoding_has_finite_gradients(position, batch):
    task = build(**{"model.position": position, "model.scan": False})
    params, collections = random_variables(task)
    grad = jax.value_and_grad(task.loss, has_aux=True)
    (value, (_, metrics)), gradients = jax.device_get(
        quick_jit(lambda p: grad(p, collections, batch, LOSS_KEY, train=True))(params)
    )
    assert np.isfinite(value)
    assert set(metrics) == {"accuracy"}
    for leaf in jax.tree.leaves(gradients):
        assert np.isfinite(leaf).all()
    backbone = gradients["backbone"]
    assert np.abs(backbone["patch_embed"]["kernel"]).max() > 1e-4
    assert ("bias_tables" in backbone) == (position in ("rpe", "irpe", *KEYPOINT_FORMS))
    assert ("position_embedding" in backbone) == (position != "none")
    if "bias_tables" in backbone:
        tables = jax.tree.leaves(backbone["bias_tables"])
        largest = max(np.abs(leaf).max() for leaf in tables)
        # Softmax removes one number per image, so this form learns nothing.
        if position == "kprpe_scalar":
            assert largest < 1e-6
        else:
            assert largest > 1e-5


@pytest.mark.parametrize("position", POSITIONS)
def test_every_encoding_builds_as_the_config_says(position, batch):
    task = build(**{"model.position": position, "model.depth": 2})
    params, collections = random_variables(task)
    value, (after, metrics) = jax.eval_shape(
        lambda: task.loss(params, collections, batch, LOSS_KEY, train=True)
    )
    assert (value.shape, value.dtype) == ((), np.float32)
    assert metrics["accuracy"].dtype == np.float32
    assert jax.tree.structure(after) == jax.tree.structure(collections)


@pytest.mark.parametrize(("number", "anchor_width"), [(2, 0.0), (3, 0.1), (4, 0.1)])
def test_fewer_keypoints(number, anchor_width, batch):
    options = dict(num_keypoints=number, anchor_width=anchor_width)
    task = build(**{f"model.position_options.{k}": v for k, v in options.items()})
    kernel = shapes_of(task)["params"]["backbone"]["bias_tables"]["kernel"]
    assert kernel[0] == 2 * number

    params, collections = random_variables(task)
    value, _ = jax.eval_shape(
        lambda: task.loss(params, collections, batch, LOSS_KEY, train=True)
    )
    assert value.shape == ()


def untrained_state(task):
    params, collections = random_variables(task)
    return loop.TrainState(
        step=jnp.int32(0),
        params=params,
        collections=collections,
        opt_state=None,
        rng=None,
        nonfinite_step=None,
    )


@pytest.mark.slow
def test_evaluators_of_a_state():
    task = build("recognition")
    assert set(task.evaluators) == {
        "clean", "affine", "affine_box", "affine_swapped", "sweep", "noise",
    }  # fmt: skip
    results = task.evaluators["clean"](untrained_state(task), tiny.one_device())
    rows = len(open_split(tiny.data_dir(), "digits", "test"))
    assert set(results) == {"accuracy", "count"}
    assert results["count"] == rows
    assert 0 < results["accuracy"] < 0.4  # untrained: near chance, 0.1


def test_a_network_without_keypoints_is_not_tested_with_others():
    keypoints = {"affine_box", "affine_swapped", "noise"}
    for position, more in (("rpe", set()), ("absolute_drawn", keypoints)):
        task = build(**{"model.position": position})
        assert set(task.evaluators) == {"clean", "affine", "sweep"} | more


@pytest.mark.slow
def test_an_official_affnist_file_adds_an_evaluator(tmp_path, rng):
    state = untrained_state(build())
    images = rng.integers(0, 256, (5, 40, 40)).astype(np.uint8)
    config = tiny.make_config("classification")
    model = Classifier(networks.make_network(config), 10)
    scores = model.apply(
        {"params": state.params, **state.collections},
        np.repeat(images[..., None] / 127.5 - 1, 3, axis=-1).astype(np.float32),
        box_keypoints(images[..., None]),
    )
    labels = np.asarray(scores.argmax(-1), np.uint8)
    labels[:2] = (labels[:2] + 1) % 10  # two wrong, three right
    columns = np.stack([image.flatten(order="F") for image in images], axis=1)
    path = tmp_path / "test.mat"
    fields = {"image": columns, "label_int": labels[None]}
    scipy.io.savemat(path, {"affNISTdata": fields})
    entry = ConfigDict(dict(type="affnist", file=str(path)))
    with config.unlocked():
        config.evals.affnist = entry
    task = tasks.build(config, tiny.one_device())
    results = task.evaluators["affnist"](state, tiny.one_device())
    assert results == {"accuracy": pytest.approx(3 / 5), "count": 5}


def test_label_smoothing_is_used(batch):
    plain, smooth = (build(**{"loss.label_smoothing": s}) for s in (0.0, 1.0))
    params, collections = random_variables(plain)

    @quick_jit
    def run():  # one forward pass: the compiler shares it
        return [
            task.loss(params, collections, batch, LOSS_KEY, train=False)[0]
            for task in (plain, smooth)
        ]

    values = run()
    assert abs(values[0] - values[1]) > 1e-3


@pytest.mark.parametrize("kind", TASKS)
def test_batches_that_the_loss_cannot_take(kind, batch):
    check = build(kind, **{"data.num_classes": 5}).check_batch
    with pytest.raises(ValueError, match=r"labels must be 0\.\.4; got "):
        check(batch)
    check = build(kind).check_batch
    check(batch)
    for change, message in (
        ({"image": batch["image"][:, :20]}, r"images must be uint8 \[b, 28, 28, 1\]"),
        ({"image": np.tile(batch["image"], 3)}, r"got uint8 \[16, 28, 28, 3\]"),
        ({"keypoints": batch["keypoints"][:, :4]}, r"keypoints must be \[16, 5, 2\]"),
        ({"keypoints": batch["keypoints"] * np.nan}, "keypoints must be finite"),
        ({"keypoints": batch["keypoints"] * 28}, r"within \[-1, 2\]"),
    ):
        with pytest.raises(ValueError, match=message):
            check({**batch, **change})


@pytest.mark.parametrize(
    ("kind", "overrides", "message"),
    [
        ("classification", {"task": "detection"}, "unknown task 'detection'; use one"),
        ("classification", {"canvas.size": 48}, r"the canvas \(48, 48\); got \(40, 40"),
        ("recognition", {"canvas.size": 48}, r"the canvas \(48, 48\); got \(40, 40"),
        ("recognition", {"loss.margin_kind": "sphere"}, "unknown kind 'sphere'; use"),
        ("recognition", {"loss.margin_gradient": "no"}, "unknown gradient 'no'; use"),
        ("recognition", {"loss.scale": 0.0}, "scale must be positive"),
        ("classification", {"data.test_split": "dev"}, "one of .*; got 'dev'"),
        ("classification", {"data.name": "digit"}, "did you mean 'digits'"),
    ],
)
def test_settings_that_do_not_fit(kind, overrides, message):
    with pytest.raises(ValueError, match=message):
        build(kind, **overrides)


def test_a_model_that_cannot_be_is_refused_before_anything_is_written(tmp_path):
    for overrides, message in (
        ({"model.position": "kprpe"}, "unknown position 'kprpe'; use one of"),
        ({"model.pool": "sum"}, "unknown pool 'sum'"),
        ({"model.patch_size": 7}, "multiple of patch_size; got 40 x 40 and 7"),
        ({"model.num_heads": 3}, "multiple of num_heads; got 16 and 3"),
    ):
        config = tiny.make_config(**overrides)
        with pytest.raises(ValueError, match=message):
            loop.train(config, tmp_path / "w")
        assert not (tmp_path / "w").exists()
