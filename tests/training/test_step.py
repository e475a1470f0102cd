import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.core import mesh as mesh_lib
from tests.meshes import mesh_of
from tests.training import toy

PLAIN = toy.make_task(batch_norm=False)


def rows(first=0, count=16, **source):
    found = toy.Source(**source).__getitems__(range(first, first + count))
    return {k: np.stack([row[k] for row in found]) for k in found[0]}


def setup(task, *, sizes=(2, 1, 1), **options):
    """Give a new state, the compiled step and the mesh."""
    mesh = mesh_of(*sizes)
    return *toy.start(task, mesh, **options), mesh


def run(task, *, steps=4, **options):
    state, step, mesh = setup(task, **options)
    for i in range(steps):
        batch = mesh_lib.put_batch(rows(16 * i), mesh)
        state, metrics = step(state, batch)
    return jax.device_get(state.params), jax.device_get(metrics), state


def assert_close(a, b, tolerance=1e-5):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=1e-6), a, b
    )


@pytest.mark.slow
def test_a_mesh_of_all_axes_gives_the_same_updates():
    one = run(toy.make_task(), sizes=(1, 1, 1))
    other = run(toy.make_task(), sizes=(2, 2, 2))
    assert_close(one[0], other[0])
    assert_close(one[1], other[1])


def test_accumulation_equals_the_big_batch():
    whole = run(PLAIN)
    parts = run(PLAIN, accumulate_steps=2)
    assert_close(whole[0], parts[0])
    assert_close(whole[1], parts[1])


@pytest.mark.slow
def test_accumulation_hands_collections_on():
    _, _, once = run(toy.make_task(), steps=1)
    _, _, twice = run(toy.make_task(), steps=1, accumulate_steps=2)
    # Batch norm (momentum 0.9) moved twice toward the batch's mean: 1 - 0.9 ** 2.
    means = [jax.device_get(s.collections)["batch_stats"] for s in (once, twice)]
    ratio = (
        means[1]["BatchNorm_0"]["mean"].sum() / means[0]["BatchNorm_0"]["mean"].sum()
    )
    assert 1.7 < ratio < 2.1


def test_each_micro_batch_is_spread_over_all_devices():
    seen = []

    def loss(params, collections, batch, rng, *, train):
        jax.debug.inspect_array_sharding(
            batch["image"], callback=lambda s: seen.append((s, batch["image"].shape))
        )
        return PLAIN.loss(params, collections, batch, rng, train=train)

    run(PLAIN._replace(loss=loss), steps=1, accumulate_steps=2)
    assert seen
    for sharding, shape in seen:
        assert shape[0] == 8
        assert sharding.shard_shape(shape)[0] == 4


def test_metrics_are_float32_scalars_with_norm_and_rate():
    _, metrics, _ = run(PLAIN, steps=2, schedule="constant", warmup=0.0)
    assert set(metrics) == {"loss", "accuracy", "grad_norm", "learning_rate"}
    assert {(m.dtype, m.shape) for m in metrics.values()} == {(np.dtype("f4"), ())}
    assert metrics["learning_rate"] == np.float32(0.01)


def test_grad_norm_is_reported_before_clipping():
    fields = {"name": "sgd", "momentum": 0.0, "warmup": 0.0, "schedule": "constant"}
    fields |= {"learning_rate": 1.0, "weight_decay": 0.0}
    before = jax.device_get(setup(PLAIN)[0].params)
    after, metrics, _ = run(PLAIN, steps=1, clip_norm=0.25, **fields)
    assert metrics["grad_norm"] > 0.5
    moved = jax.tree.map(lambda a, b: np.sum((a - b) ** 2), before, after)
    np.testing.assert_allclose(np.sqrt(sum(jax.tree.leaves(moved))), 0.25, rtol=1e-5)


def test_nothing_changes_after_a_nonfinite_gradient():
    state, step, mesh = setup(toy.make_task())
    for i, bad in enumerate((None, 20, None, 50)):
        kept = jax.device_get((state.params, state.collections, state.opt_state))
        batch = mesh_lib.put_batch(rows(16 * i, bad_row=bad), mesh)
        state, _ = step(state, batch)
        assert int(state.step) == i + 1
        assert int(state.nonfinite_step) == (-1 if i == 0 else 2)
        if i:
            now = jax.device_get((state.params, state.collections, state.opt_state))
            jax.tree.map(np.testing.assert_array_equal, kept, now)


def test_an_infinite_gradient_of_a_finite_loss_counts():
    def loss(params, collections, batch, rng, *, train):
        return jnp.sum(jnp.sqrt(params["w"])), (collections, {})  # slope inf at 0

    def init(rng):
        return {"params": {"w": jnp.zeros((2, 2))}}

    task = toy.make_task()._replace(init=init, loss=loss, sharding_rules=())
    state, step, mesh = setup(task)
    state, metrics = step(state, mesh_lib.put_batch(rows(), mesh))
    assert metrics["loss"] == 0
    assert int(state.nonfinite_step) == 1


def test_rng_differs_by_step_and_micro_batch():
    def loss(params, collections, batch, rng, *, train):
        drawn = jax.random.uniform(rng)
        return params["w"].sum(), ({"last": drawn}, {"drawn": drawn})

    def init(rng):
        return {"params": {"w": jnp.zeros((2, 2))}, "last": jnp.zeros(())}

    task = toy.make_task()._replace(init=init, loss=loss, sharding_rules=())
    state, step, mesh = setup(task, accumulate_steps=2)
    drawn = set()
    for _ in range(2):
        state, metrics = step(state, mesh_lib.put_batch(rows(), mesh))
        last = float(state.collections["last"])
        drawn |= {last, 2 * float(metrics["drawn"]) - last}
    assert len(drawn) == 4


def test_one_compilation_per_shape(caplog):
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        state, step, mesh = setup(PLAIN)
        for i in range(3):
            state, _ = step(state, mesh_lib.put_batch(rows(16 * i), mesh))
        assert step.compilations == 1
        state, _ = step(state, mesh_lib.put_batch(rows(count=8), mesh))
        assert step.compilations == 2
    compiled = "Finished XLA compilation of jit(train_step)"
    assert sum(compiled in record.message for record in caplog.records) == 2


def test_the_state_is_donated():
    state, step, mesh = setup(PLAIN)
    step(state, mesh_lib.put_batch(rows(), mesh))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
