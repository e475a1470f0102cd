"""Training on gait: its loss, its batches, its configs, and a study of two steps."""

import functools
import json
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from kprpe_jax import tasks
from kprpe_jax.configs import gait as gait_config
from kprpe_jax.configs.base import set_evaluators
from kprpe_jax.data.loader import train_batches
from kprpe_jax.data.prepare import prepare
from kprpe_jax.tasks import gait
from kprpe_jax.training.config import load_config
from kprpe_jax.training.optimizer import decay_mask, make_schedule, position_mask
from tests.quick import quick_jit
from tests.tasks import tiny
from tests.test_commands import start

BUILDER = dict(
    num_identities=3, num_test_identities=3, sequences_per_identity=3, num_frames=4,
    size=16, seed=0, difficulty=1.0,
)  # fmt: skip
SMALL = {
    "steps": 2,
    "data.num_classes": 3,
    "data.batch_size": 4,
    "data.sequences_per_identity": 2,
    "data.num_frames": 2,
    "data.skip_frames": 1,
    "data.num_threads": 1,
    "optimizer.warmup": 0.0,
    "model.image_size": (16, 11),
    "model.channels": (4, 4),
    "model.map_size": (8, 6),
    "model.width": 8,
    "model.depths": (1, 2),
    "model.num_heads": (2, 2),
    "model.window": (2, 3),
    "model.bins": (2,),
    "model.part_dim": 4,
    "evals.batch_size": 4,
    "evals.in_training": (),
    "checkpoint.best_metric": "",
    "log.every_steps": 1,
} | {f"data.builder.{name}": value for name, value in BUILDER.items()}


@functools.cache
def _data() -> tempfile.TemporaryDirectory:
    folder = tempfile.TemporaryDirectory(prefix="kprpe_jax_walkers_")
    prepare("synthetic_walkers", folder.name, **BUILDER)
    return folder  # removed when the interpreter ends


def evaluators():
    fields = dict(type="gait_search", split="test", lengths=(4,))
    return {
        "aligned": fields,
        "misaligned_1": {**fields, "severity": 1.0},
        "noise_0_1": {**fields, "alpha": 0.1},
        "missing_1": {**fields, "missing": 1.0},
        "swapped": {**fields, "swapped": True},
    }


BASELINES = {
    "gaitset": {"model.channels": (2, 3, 4), "model.bins": (2, 1)},
    "gaitbase": {"model.channels": (2, 3, 4, 5), "model.bins": (2,)},
}


def overrides(network: str = "kprpe", **extra) -> dict:
    own = SMALL | {"data.dir": _data().name}
    if network in BASELINES:
        shared = ("model.image_size", "model.part_dim")
        own = {k: x for k, x in own.items() if k in shared or "model." not in k}
    return own | BASELINES.get(network, {}) | extra


def make_config(network: str = "kprpe", **extra) -> ConfigDict:
    config = gait_config.get_config(network)
    set_evaluators(config, evaluators())
    config.update_from_flattened_dict(overrides(network, **extra))
    return config.lock()


@pytest.fixture(scope="module")
def built():
    config = make_config()
    task = tasks.build(config, tiny.one_device())
    rows = task.open_training(0)
    batch = next(train_batches(rows.source, rows.order, batch_size=4, num_threads=1))
    return config, task, batch, quick_jit(task.init)(jax.random.key(0))


@pytest.mark.slow
def test_the_loss_is_triplets_and_classes_and_falls(built):
    config, task, batch, variables = built
    task.check_batch(batch)
    assert (batch["label"][::2] == batch["label"][1::2]).all()
    assert batch["label"][0] != batch["label"][2]
    collections = {"batch_stats": variables["batch_stats"]}
    # Compiled so, one maximum was once rounded differently than the other: NaN.
    grad = quick_jit(
        jax.value_and_grad(functools.partial(task.loss, train=True), has_aux=True)
    )
    optimizer = optax.adam(3e-3)
    params = variables["params"]
    state = optimizer.init(params)
    totals = []
    for step in range(25):
        key = jax.random.key(step)
        (total, (collections, metrics)), grads = grad(params, collections, batch, key)
        assert total == pytest.approx(
            float(metrics["triplet"] + metrics["cross_entropy"]), rel=1e-5
        )
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
        totals.append(float(total))
        updates, state = optimizer.update(grads, state)
        params = optax.apply_updates(params, updates)
    assert totals[-1] < 0.7 * totals[0]
    moved = [
        np.abs(new - old).max()
        for new, old in zip(
            *map(jax.tree.leaves, (collections, {"b": variables["batch_stats"]})),
            strict=True,
        )
    ]
    assert max(moved) > 0
    kernel = params["keypoint_bias_0"]["kernel"]
    assert np.abs(kernel).max() > 0  # joints reach the loss

    evaluated = task.evaluators["swapped"](
        type("State", (), {"params": params, "collections": collections}),
        tiny.one_device(),
    )
    assert (evaluated["probes"], evaluated["gallery"]) == (3, 6)
    assert 0 <= evaluated["minp"] <= evaluated["map"] <= 1


@pytest.mark.parametrize("network", BASELINES)
def test_baselines_learn_from_triplets_and_gaitbase_from_classes(network):
    task = tasks.build(make_config(network), tiny.one_device())
    variables = jax.eval_shape(task.init, jax.random.key(0))
    params = variables.pop("params")
    rows = task.open_training(0)
    batch = next(train_batches(rows.source, rows.order, batch_size=4, num_threads=1))
    task.check_batch(batch)
    loss = functools.partial(task.loss, train=True)
    _, (collections, metrics) = jax.eval_shape(
        loss, params, variables, batch, jax.random.key(1)
    )
    assert jax.tree.structure(collections) == jax.tree.structure(variables)
    assert ("cross_entropy" in metrics) == (network == "gaitbase")
    assert ("classes" in params["heads"]) == (network == "gaitbase")


def test_faults_of_the_config_are_one_sentence():
    cases = [
        ({"loss.triplet": "hard"}, "must be one of batch_all, batch_hard; got 'hard'"),
        ({"data.batch_size": 5}, "multiple of .*sequences_per_identity.* got 5 and 2"),
        ({"data.sequences_per_identity": 1}, "at least 2; got 4 and 1"),
        ({"model.window": (2, 2, 3)}, "2-D network; got"),
        ({"backbone": "resnet"}, "one of swin_gait, gaitset, gaitbase; got 'resnet'"),
        ({"backbone": "gaitset"}, "fields of GaitSet; got others: depths, .* without"),
        ({"model.image_size": (32, 22)}, "must be 32 x 22 pixels; got 16 x 11"),
        ({"evals.aligned.split": "probes"}, "got 'probes'"),
        ({"evals.aligned.lengths": (4, 2)}, "must be positive and rise"),
        ({"augmentation.scale": (0.0, 1.0)}, "scale"),
    ]
    for wrong, message in cases:
        with pytest.raises(ValueError, match=message) as error:
            tasks.build(make_config(**wrong), tiny.one_device())
        assert "\n" not in str(error.value)


def test_the_config_of_gait3d_is_the_papers():
    config = load_config("configs/gait3d.py")
    assert config.steps == 60_000
    assert config.data.batch_size == 32 * 4
    assert config.data.sequences_per_identity == 4
    optimizer = config.optimizer
    assert (optimizer.name, optimizer.schedule) == ("adamw", "sgdr")
    assert (optimizer.learning_rate, optimizer.weight_decay) == (3e-4, 2e-2)
    schedule = make_schedule(optimizer, steps=config.steps)
    assert schedule(0) == pytest.approx(3e-4)
    assert schedule(30_000) == pytest.approx((3e-4 + 1e-6) / 2)
    assert schedule(60_000) == pytest.approx(1e-6)
    model = gait.make_model(config)
    assert model.uses_keypoints
    assert not gait.make_model(load_config("configs/gait3d.py:table")).uses_keypoints
    assert (model.grid, model.image_size) == ((15, 10), (64, 44))


def test_sgdr_starts_again_at_every_boundary():
    config = gait_config.get_config().optimizer
    config.update(dict(warmup=4.0, boundaries=(10, 30), learning_rate=1.0))
    config.end_learning_rate = 0.1
    schedule = make_schedule(config, steps=60)
    want = []
    for t in range(61):
        if t < 4:
            want.append((t + 1) / 4)
            continue
        begin, end = [p for p in ((4, 10), (10, 30), (30, 60)) if t >= p[0]][-1]
        share = (t - begin) / (end - begin)
        want.append(0.1 + 0.45 * (1 + np.cos(np.pi * share)))
    got = [float(schedule(t)) for t in range(61)]
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert got[10] == got[30] == 1.0
    # Without boundaries it is the cosine.
    plain = ConfigDict(config.to_dict() | {"boundaries": ()})
    cosine = ConfigDict(plain.to_dict() | {"schedule": "cosine"})
    steps = jnp.arange(61.0)
    np.testing.assert_allclose(
        jax.vmap(make_schedule(plain, steps=60))(steps),
        jax.vmap(make_schedule(cosine, steps=60))(steps),
        atol=1e-6,
    )


@pytest.mark.parametrize("position", ["kprpe", "table"])
def test_biases_of_windows_learn_faster_and_are_not_decayed(position):
    model = gait.make_model(make_config(position))
    example = jnp.zeros((2, 2, 16, 11)), jnp.zeros((2, 2, 17, 2))
    params = jax.eval_shape(model.init, jax.random.key(0), *example)["params"]

    def marked(mask):
        flat = jax.tree_util.tree_leaves_with_path(mask)
        return {jax.tree_util.keystr(path) for path, value in flat if value}

    fast, decayed = marked(position_mask(params)), marked(decay_mask(params))
    wanted = "keypoint_bias" if position == "kprpe" else "'offset_bias']['table'"
    assert len(fast) == (4 if position == "kprpe" else 3)
    assert all(wanted in path for path in fast)
    assert not fast & decayed
    assert "['widen']['kernel']" in decayed


@pytest.mark.slow
def test_the_study_trains_both_and_draws_what_they_learned(tmp_path):
    arguments = [f"--config.{name}={value}" for name, value in overrides().items()]
    command = (
        "-m", "experiments", "encodings", "--config=configs/gait.py",
        "--positions=table,kprpe",
        f"--output={tmp_path}", *arguments,
    )  # fmt: skip
    done = start(*command, devices=1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("step 2/2") == 2
    rows = (tmp_path / "report.md").read_text().splitlines()
    cells = {
        row.split(" | ")[0]: row.split(" | ") for row in rows if row.startswith("| ")
    }
    results = json.loads((tmp_path / "runs" / "kprpe-0" / "study.json").read_text())
    assert cells["| kprpe"][1] == f"{100 * results['aligned/rank_1']:.1f}"
    assert cells["| kprpe"][4] == f"{100 * results['aligned/map']:.1f}"
    assert cells["| encoding"][-2] == "swapped joints"
    assert cells["| table"][-2] == ""
    assert set(results) >= {"misaligned_0_5/rank_5", "noise_0_1/minp", "missing_1/map"}
    done = start(
        "-m", "experiments", "gait_pictures", f"--workdir={tmp_path}/runs/kprpe-0",
        f"--output={tmp_path}/p", "--query=1,1", devices=1,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pictures = {path.name for path in (tmp_path / "p").iterdir()}
    assert pictures == {"gait_offsets.png", "gait_searches.png"}
