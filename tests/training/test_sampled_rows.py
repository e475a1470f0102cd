"""Steps on sampled class centers: a linear backbone, sharded centers, AdamW and SGD."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax import tasks
from kprpe_jax.core import mesh as mesh_lib
from kprpe_jax.losses.class_centers import margin_softmax
from kprpe_jax.losses.class_sampling import SAMPLED, sample_classes
from kprpe_jax.losses.margin import make_margin
from kprpe_jax.tasks.recognition import SHARDING_RULES
from kprpe_jax.tasks.task import Task
from kprpe_jax.training import loop
from kprpe_jax.training.checkpoint import restore_arrays
from kprpe_jax.training.sharding import flatten_with_paths
from tests.meshes import mesh_of
from tests.tasks import synthetic_people
from tests.training import toy

CLASSES, ROWS, WIDTH, BATCH = 230, 256, 6, 16

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")


def make_task(mesh, rate, rows=ROWS, classes=CLASSES):
    """`rate` None: all centers take part, in the ordinary step."""
    margin = make_margin("cosface", margin=0.3)

    def init(rng):
        one, two = jax.random.split(rng)
        kernel = jax.random.normal(one, (WIDTH, WIDTH))
        centers = 0.01 * jax.random.normal(two, (rows, WIDTH))
        return {"params": {"kernel": kernel, "class_centers": centers}}

    def loss(params, collections, batch, rng, *, train):
        sample = collections.get(SAMPLED)
        result = margin_softmax(
            batch["x"] @ params["kernel"],
            params["class_centers"],
            batch["label"],
            margin=margin,
            num_classes=classes,
            mesh=mesh,
            classes=None if sample is None else sample.classes,
        )
        return result.loss, (collections, {"accuracy": result.accuracy})

    def sample(batch, rng):
        return sample_classes(
            rng, batch["label"], rows=rows, num_classes=classes, sample_rate=rate,
            mesh=mesh,
        )  # fmt: skip

    nothing = dict.fromkeys(("open_training", "check_batch", "evaluators"))
    return Task(
        init=init,
        loss=loss,
        **nothing,
        sharding_rules=SHARDING_RULES,
        sample_classes=None if rate is None else sample,
    )


def make_run(rate, sizes, *, rows=ROWS, classes=CLASSES, **options):
    """The state of step 0, the compiled step and the mesh."""
    mesh = mesh_of(*sizes)
    return *toy.start(make_task(mesh, rate, rows, classes), mesh, **options), mesh


def batches(mesh, count):
    rng = np.random.default_rng(0)
    for _ in range(count):
        x = rng.normal(size=(BATCH, WIDTH)).astype(np.float32)
        labels = rng.integers(0, CLASSES, BATCH).astype(np.int32)
        labels[3] = -1
        yield labels, mesh_lib.put_batch({"x": x, "label": labels}, mesh)


def center_arrays(state):
    """Centers and moments, by path, on the host."""
    arrays = flatten_with_paths((state.params, state.opt_state))
    found = {path: x for path, x in arrays.items() if path.endswith("class_centers")}
    return jax.device_get(found)


@pytest.mark.parametrize(
    ("accumulate_steps", "sizes"),
    [(1, (2, 1, 4)), pytest.param(2, (1, 2, 4), marks=pytest.mark.slow)],
)
def test_a_sample_of_all_gives_the_ordinary_step(accumulate_steps, sizes):
    found = []
    for rate in (None, 1.0):
        state, step, mesh = make_run(rate, sizes, accumulate_steps=accumulate_steps)
        for _, batch in batches(mesh, 3):
            state, metrics = step(state, batch)
        kernel = state.params["kernel"]
        centers = {path: x[:CLASSES] for path, x in center_arrays(state).items()}
        found.append(jax.device_get((kernel, centers, metrics)))
        assert step.compilations == 1
        assert state.collections == {}
    leaves = zip(*(jax.tree.leaves(x) for x in found), strict=True)
    for one, other in leaves:
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("adamw", (2, 1, 4)), pytest.param("sgd", (1, 1, 8), marks=pytest.mark.slow)],
)
def test_what_is_not_sampled_stays_bit_for_bit(name, sizes):
    state, step, mesh = make_run(0.2, sizes, name=name, weight_decay=0.1)
    before = center_arrays(state)
    assert len(before) == {"adamw": 3, "sgd": 2}[name]
    here = ROWS // sizes[2]
    want = sum(int(0.2 * np.clip(CLASSES - n * here, 0, here)) for n in range(sizes[2]))
    seen = np.zeros(ROWS, bool)
    for labels, batch in batches(mesh, 3):
        state, _ = step(state, batch)
        after = center_arrays(state)
        moved = [(after[p] != before[p]).any(1) for p in before]
        assert all((m == moved[0]).all() for m in moved)
        assert moved[0][labels[labels >= 0]].all()
        assert moved[0].sum() == want  # decay moves every one of the sample
        seen |= moved[0]
        before = after
    assert want < seen.sum() < CLASSES  # another sample each time
    assert not seen[CLASSES:].any()


@pytest.mark.slow
def test_a_bad_batch_changes_nothing():
    state, step, mesh = make_run(0.2, (1, 1, 4))
    before = center_arrays(state)
    ((_, batch),) = batches(mesh, 1)
    x = batch["x"].at[0, 0].set(jnp.nan)
    state, _ = step(state, {**batch, "x": jax.device_put(x, batch["x"].sharding)})
    assert state.nonfinite_step == 1
    after = center_arrays(state)
    assert all((after[path] == before[path]).all() for path in before)


def test_centers_are_updated_in_place():
    """No copy, no gradient and no number per class: centers of 6 MiB, 1 MiB at most."""
    rows = 2**18
    state, step, mesh = make_run(0.001, (1, 1, 1), rows=rows, classes=rows)
    ((_, batch),) = batches(mesh, 1)
    memory = step.compile(state, batch).memory_analysis()
    assert memory.alias_size_in_bytes > 3 * 4 * rows * WIDTH
    assert memory.temp_size_in_bytes < 2**20


@pytest.mark.slow
def test_a_run_goes_on_where_it_was_stopped(tmp_path):
    changes = {"loss.sample_rate": 0.5, "loss.margin_kind": "curricularface"}
    config = synthetic_people.make_config(**changes, steps=4)
    straight = loop.train(config, tmp_path / "straight")
    assert straight["compilations"] == 1
    mesh = mesh_lib.make_mesh(config.mesh)
    task, calls = tasks.build(config, mesh), []

    def check_batch(batch):
        calls.append(batch)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    stopped = tmp_path / "stopped"
    loop.train(config, stopped, task=task._replace(check_batch=check_batch))
    assert len(calls) < 4
    resumed = loop.train(config, stopped)
    assert resumed["loss"] == straight["loss"]
    means = [
        restore_arrays(folder, "last", config, lambda path: "target_cosines" in path)[2]
        for folder in (tmp_path / "straight", stopped)
    ]
    one, other = (x["target_cosines"]["mean"] for x in means)
    assert one == other != 0
    assert "sampling_overflow" in resumed
