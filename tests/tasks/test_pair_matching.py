"""Pair matching: losses by hand, faults of config and data, the CNN, a real run."""

from functools import partial

import flax.linen as nn
import jax
import numpy as np
import pytest

from kprpe_jax import registry, tasks
from kprpe_jax.backbones.network import Network
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.input_spec import InputSpec
from kprpe_jax.core.mesh import make_mesh, put_batch
from kprpe_jax.layers.batch_norm import BatchNorm
from kprpe_jax.matching.two_image import score_pairs
from kprpe_jax.recognizers import load_matcher
from kprpe_jax.tasks import networks, pair_data, pair_matching
from kprpe_jax.training import loop
from kprpe_jax.training.config import load_config
from kprpe_jax.training.evaluate import evaluate
from kprpe_jax.training.optimizer import make_schedule
from kprpe_jax.weights import export_weights
from tests.quick import quick_jit
from tests.tasks import made_patches, synthetic_people
from tests.tasks.tiny import one_device

NETWORKS = ("h1", "h2", "h2l")


def open_pairs(config, origin):
    """The pairs of the config's evaluator."""
    fields = {k: v for k, v in config.evals.pairs.items() if k != "type"}
    return pair_data.open_pairs(config, origin, **fields)


def drawn(task, rng):
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    variables = jax.tree.map(lambda s: rng.normal(size=s.shape), shapes)
    variables = jax.tree.map(np.float32, dict(variables))
    return variables.pop("params"), variables


def slow_arcface(embeddings, centers, labels, *, margin, scale):
    """Mean cross entropy, one row after the other, in float64."""
    losses = []
    for row, label in zip(np.float64(embeddings), labels, strict=True):
        cosines = centers @ row / np.linalg.norm(centers, axis=1) / np.linalg.norm(row)
        angle = np.arccos(cosines[label]) + margin
        beyond = cosines[label] - margin * np.sin(margin)
        cosines[label] = np.cos(angle) if angle < np.pi else beyond
        logits = scale * cosines
        losses.append(np.log(np.exp(logits - logits.max()).sum()) + logits.max())
        losses[-1] -= logits[label]
    return np.mean(losses)


@pytest.mark.parametrize("network", NETWORKS)
def test_losses_by_hand(network, rng):
    config = made_patches.make_config(network)
    task = tasks.build(config, one_device())
    params, collections = drawn(task, rng)
    batch = made_patches.batch_of(task)
    assert batch["patches"].shape == (16, 2, 6, 8)
    run = quick_jit(lambda p, b, rng: task.loss(p, collections, b, rng, train=True))
    loss, (_, metrics) = run(params, batch, jax.random.key(0))
    assert ("class_centers" in params) == (network != "h2")

    model = pair_matching.make_model(config.model)
    variables = {"params": params["transformer"]}
    sides = np.float32(batch["patches"]).swapaxes(0, 1)
    apply = quick_jit(model.apply)
    labels, scale = batch["label"].T, config.loss.scale
    if network == "h2":
        logits = np.float64(apply(variables, *sides))
        same = labels[0] == labels[1]
        assert same.sum() == 8
        wrong = np.where(same, logits[:, 0] - logits[:, 1], logits[:, 1] - logits[:, 0])
        np.testing.assert_allclose(loss, np.log1p(np.exp(wrong)).mean(), rtol=1e-4)
        np.testing.assert_allclose(metrics["accuracy"], (wrong < 0).mean())
        return
    if network == "h1":
        outputs = [apply(variables, side) for side in sides]
    else:
        outputs = apply(variables, *sides)[:2]
    centers = np.float64(params["class_centers"][:8])
    options = dict(margin=config.loss.margin, scale=scale)
    each = [
        slow_arcface(x, centers, y, **options)
        for x, y in zip(outputs, labels, strict=True)
    ]
    assert abs(each[0] - each[1]) > 0.1
    np.testing.assert_allclose(loss, np.mean(each), rtol=1e-4)


@pytest.mark.parametrize(
    "network", [*(pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS[:2]), "h2l"]
)
def test_the_evaluator_verifies_unseen_people(network):
    """Its scores are those of the pairs one by one; the CNN's cosine stands beside."""
    task = tasks.build(made_patches.make_config(network), one_device())
    config = made_patches.make_config(network)
    data = pair_data.open_data(config, one_device())
    tested, genuine = open_pairs(config, data.origin)
    pairs = tested.__getitems__(range(100))
    # Labels count from the first of the tested people, 8.
    same = [pair["label"][0] == pair["label"][1] for pair in pairs]
    np.testing.assert_array_equal(same, genuine)
    assert min(pair["id"] for pair in pairs) == 8 * made_patches.PHOTOS

    # Weights whose scores are far from ties, which programs may round either way.
    params, collections = drawn(task, np.random.default_rng(1))
    state = type("State", (), {"params": params, "collections": collections})
    got = task.evaluators["pairs"](state, one_device())
    model = pair_matching.make_model(made_patches.make_config(network).model)
    score = quick_jit(
        lambda a, b: score_pairs(model, {"params": params["transformer"]}, a, b)
    )
    scores = np.concatenate(
        [
            score(*np.float32([pair["patches"] for pair in part]).swapaxes(0, 1))
            for part in (pairs[:50], pairs[50:])
        ]
    )
    same = np.array(same)
    assert np.abs(scores[same][:, None] - scores[~same]).min() > 1e-6
    want = pair_matching.verification(scores, same)
    assert got["accuracy"] == pytest.approx(want["accuracy"])
    assert got["auc"] == pytest.approx(want["auc"])
    assert got["pairs"] == 100
    embeddings = np.stack([pair["embedding"] for pair in pairs])
    embeddings /= np.linalg.norm(embeddings, axis=-1, keepdims=True)
    cosine = pair_matching.verification(embeddings.prod(1).sum(-1), np.array(same))
    assert got["cosine_accuracy"] == pytest.approx(cosine["accuracy"])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"model.variant": "three"},
            "variant must be one of one_image, same_or_",
        ),
        ({"data.input": "video"}, "input must be one of patches, images; got 'video'"),
        ({"model.num_patches": 64}, "must be those of made, 6 and 8; got 64 and 8"),
        ({"model.width": 512}, "must be those of made, 6 and 8; got 6 and 512"),
        ({"data.train_identities": (40, 50)}, r"must lie in 40 .. 49; got 0 .. 11"),
        ({"data.train_identities": (3, 4)}, "pairs need two people .*; got 1 people"),
        ({"evals.pairs.identities": (8, 9)}, "there must be two identities"),
        ({"data.name": "absent"}, "must be a prepared data set"),
    ],
)
def test_faults_of_the_config_are_described(changes, match):
    config = made_patches.make_config(**changes)
    with pytest.raises(ValueError, match=match):
        tasks.build(config, one_device()).open_training(0)


def test_an_unknown_network_is_named():
    with pytest.raises(ValueError, match="must be one of v, h1, h2, h2l; got 'h3'"):
        made_patches.make_config("h3")


def test_faults_of_the_data_are_described():
    task = tasks.build(made_patches.make_config("h2"), one_device())
    batch = made_patches.batch_of(task)
    task.check_batch(batch)
    stranger, broken = dict(batch), dict(batch)
    stranger["label"] = np.where(np.arange(2) == 1, 8, batch["label"])
    broken["patches"] = batch["patches"].copy()
    broken["patches"][3, 1, 2, 4] = np.nan
    for bad, match in (
        (stranger, rf"labels must be 0..7; got 8 \(id {batch['second_id'][0]}\)"),
        (broken, rf"those of the rows with id \[{batch['second_id'][3]}\] are not"),
    ):
        with pytest.raises(ValueError, match=match):
            task.check_batch(bad)


def test_the_thesis_training():
    """Face-ViT, Sec. 4.3 and 5.3.1."""
    config = load_config("configs/pair_matching_casia.py")
    schedule = make_schedule(config.optimizer, steps=config.steps)
    epoch = 2_000_000 // 320
    assert config.data.batch_size == 320
    assert config.steps == 50 * epoch
    for step, rate in ((0, 1e-6), (epoch - 1, 1e-6), (epoch, 1e-5), (49 * epoch, 1e-5)):
        assert schedule(step) == pytest.approx(rate)
    assert (config.loss.margin, config.loss.scale) == (0.5, 30.0)
    model = pair_matching.make_model(config.model)
    assert (model.encoder.depth, model.encoder.num_heads) == (1, 4)
    assert (model.encoder.num_patches, model.output_dim) == (64, 512)
    assert not config.train_backbone
    assert config.backbone == "deepface_emd_arcface"


def images_config(**extra):
    """On synthetic people of 32 x 32 pixels, through a CNN: 2 x 2 patches of 512."""
    return made_patches.make_config(
        **{
            "data.dir": synthetic_people.data_dir(),
            "data.name": "people",
            "data.input": "images",
            "data.image_shape": (32, 32, 3),
            "model.num_patches": 4,
            "model.width": 512,
            "data.train_split": "train",
            "evals.pairs.split": "train",
            "train_backbone": True,
            **extra,
        }
    )


class TinyCnn(Network):
    """One convolution and a batch norm in place of MobileFaceNet."""

    image_size: tuple[int, int] = (112, 112)
    patch_map = "maps"

    @nn.compact
    def feature_maps(self, images, keypoints=None, *, train=False):
        x = nn.Conv(512, (16, 16), 16, name="conv")(images)
        return {"maps": BatchNorm(name="norm")(x, train=train)}


TINY = registry.network("mobilefacenet")._replace(
    build=f"{__name__}:TinyCnn", input_spec=InputSpec((112, 112))
)


def load_tiny(config):
    """With weights, as if they were published."""
    model = TinyCnn((32, 32))
    images = np.zeros((1, 32, 32, 3), np.float32)
    variables = model.init(jax.random.key(9), images, method="feature_maps")
    return Recognizer(dict(variables), model, InputSpec((32, 32)), "tiny")


@pytest.mark.slow
@pytest.mark.parametrize("trained", [True, False])
def test_the_cnn_below(trained, monkeypatch):
    """Trained it learns and collects batch statistics; frozen it stays as it was."""
    monkeypatch.setitem(registry.NETWORKS, "tiny", TINY)
    monkeypatch.setattr(networks, "load_backbone", load_tiny)
    config = images_config(
        backbone="tiny",
        train_backbone=trained,
        backbone_weights="" if trained else "published",
    )
    task = tasks.build(config, one_device())
    variables = dict(quick_jit(task.init)(jax.random.key(0)))
    params = variables.pop("params")
    assert ("backbone" in params) == trained
    batch = made_patches.batch_of(task, 4)

    def loss(params, train):
        return task.loss(params, variables, batch, jax.random.key(1), train=train)

    (trained_loss, (changed, _)), gradients = quick_jit(
        jax.value_and_grad(partial(loss, train=True), has_aux=True)
    )(params)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))
    before, after = (x["backbone"]["batch_stats"] for x in (variables, changed))
    moved = [
        bool(np.any(a != b))
        for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True)
    ]
    if trained:
        assert np.any(gradients["backbone"]["conv"]["kernel"])
        assert all(moved)
    else:
        assert "params" in changed["backbone"]  # of the checkpoint all the same
        assert not any(moved)
        # Its batch norms are those of the evaluation, too.
        plain, _ = quick_jit(partial(loss, train=False))(params)
        np.testing.assert_allclose(trained_loss, plain, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"train_backbone": False}, "must have weights or be trained; got neither"),
        ({"model.num_patches": 42}, "those of mobilefacenet, 4 and 512; got 42 and"),
        (
            {"data.image_shape": (40, 40, 3)},
            "images must be 40 x 40 pixels; got 32 x 32",
        ),
        ({"backbone": "vgg"}, "unknown recognizer 'vgg'; did you mean"),
    ],
)
def test_faults_of_the_cnn_are_described(changes, match):
    with pytest.raises(ValueError, match=match):
        tasks.build(images_config(**changes), one_device())


@pytest.mark.slow
def test_the_loss_is_that_of_one_device(rng):
    """Pairs lie sharded over eight devices, the class centers over two of them."""
    config = made_patches.make_config()
    meshes = [one_device(), make_mesh({"data": 2, "fsdp": 2, "class": 2})]
    task = tasks.build(config, meshes[0])
    params, collections = drawn(task, rng)
    batch = made_patches.batch_of(task)

    def loss(params, batch, task):
        rng = jax.random.key(0)
        return task.loss(params, collections, batch, rng, train=True)[0]

    found = []
    for mesh in meshes:
        task = tasks.build(config, mesh)
        gradients = quick_jit(jax.value_and_grad(partial(loss, task=task)))
        found.append(jax.device_get(gradients(params, put_batch(batch, mesh))))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *found
    )


@pytest.mark.slow
def test_official_weights_verify(tmp_path, rng):
    official = {
        "model.attention": "residual",
        "model.logit_scale": "width",
        "model.head_norm": "batch",
    }
    config = made_patches.make_config(**official)
    task = tasks.build(config, one_device())
    params, collections = drawn(task, rng)
    collections = jax.tree.map(np.exp, collections)  # variances are positive
    model = pair_matching.make_model(config.model)
    variables = {"params": params["transformer"], **collections}
    path = tmp_path / "official.npz"
    np.savez(path, **export_weights(model, variables))
    got = evaluate(config, tmp_path, weights=str(path))
    state = type("State", (), {"params": params, "collections": collections})
    want = task.evaluators["pairs"](state, one_device())
    assert got["pairs/auc"] == pytest.approx(want["auc"], abs=1e-6)
    ours = made_patches.make_config()
    with pytest.raises(ValueError, match="official weights are made for"):
        evaluate(ours, tmp_path, weights=str(path))


@pytest.mark.slow
def test_a_run_learns_and_is_not_taken_for_another(tmp_path):
    learned = {
        "steps": 60,
        "optimizer.learning_rate": 1e-2,
        "evals.in_training": ("pairs",),
        "evals.every_steps": 60,
    }
    results = loop.train(made_patches.make_config(**learned), tmp_path)
    assert results["compilations"] == 1
    assert results["loss"] < 1
    assert results["pairs/auc"] > 0.7  # chance is 0.5
    again = evaluate(made_patches.make_config(**learned), tmp_path, checkpoint="last")
    assert again["pairs/auc"] == pytest.approx(results["pairs/auc"])
    # Of its own the run is a score of patches.
    config = made_patches.make_config(**learned)
    run = load_matcher(f"{tmp_path}@last")
    score = quick_jit(partial(score_pairs, run.model, run.variables))
    tested, genuine = open_pairs(config, {})
    pairs = [pair["patches"] for pair in tested.__getitems__(range(100))]
    scores = np.asarray(score(*np.float32(pairs).swapaxes(0, 1)))
    want = pair_matching.verification(scores, genuine)
    assert results["pairs/auc"] == pytest.approx(want["auc"])
    with pytest.raises(ValueError, match="model.variant is 'two_linear' in the run"):
        evaluate(made_patches.make_config("h2", **learned), tmp_path, checkpoint="last")
