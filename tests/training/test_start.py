"""Runs that start from weights, with frozen parts and factors; runs that go on."""

import json

import jax
import numpy as np
import pytest

from kprpe_jax.training import loop
from kprpe_jax.training.checkpoint import restore_arrays
from kprpe_jax.training.runs import read_config
from kprpe_jax.training.sharding import flatten_with_paths
from tests.training import toy

TASK = toy.make_task(batch_norm=False)


def config_of(*, model=None, factors=(), **overrides):
    overrides = {"steps": 4, "optimizer.warmup": 0.0, **overrides}
    overrides |= {"checkpoint.every_steps": 2, "evals.in_training": ()}
    config = toy.make_config(**overrides, **{"checkpoint.best_metric": ""})
    with config.unlocked():
        config.model = model or {}
        config.optimizer.learning_rate_factors = factors
    return config


def train(workdir, *, task=TASK, extend=False, **fields):
    config = config_of(**fields)
    return loop.train(config, workdir, task=task, extend=extend)


def arrays_of(workdir, checkpoint="last"):
    config = read_config(workdir)
    _, params, _ = restore_arrays(workdir, checkpoint, config, lambda path: True)
    return {k: np.asarray(x) for k, x in flatten_with_paths(params).items()}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run to start from, on all devices."""
    workdir = tmp_path_factory.mktemp("first")
    train(workdir)
    return workdir


def assert_equal(got, want):
    assert got.keys() == want.keys()
    for path in want:
        np.testing.assert_array_equal(got[path], want[path], err_msg=path)


def test_a_run_starts_from_another_and_says_so(first, tmp_path, capsys):
    model = {"weights": f"{first}@last"}
    train(tmp_path, model=model, steps=1, **{"optimizer.learning_rate": 0.0})
    assert_equal(arrays_of(tmp_path), arrays_of(first))
    out = capsys.readouterr().out
    assert f"starts from {first}@last\ntaken: 3 arrays (0.00192 M numbers)\n" in out
    assert "new: nothing\nleft aside: nothing\n" in out
    kept = json.loads((tmp_path / "weights.json").read_text())
    assert kept["spec"] == f"{first}@last"
    assert len(kept["fingerprint"]) == 64


@pytest.mark.slow
def test_a_stopped_run_goes_on_without_the_weights(tmp_path):
    model = {"weights": str(tmp_path / "first")}
    train(tmp_path / "first", steps=2)
    straight = train(tmp_path / "straight", model=model, seed=1)
    train(tmp_path / "again", model=model, seed=1)
    for folder in (tmp_path / "again/checkpoints/4", tmp_path / "first"):
        folder.rename(tmp_path / f"gone_{folder.name}")
    resumed = train(tmp_path / "again", model=model, seed=1, **{"mesh.data": -1})
    assert resumed == straight
    assert_equal(arrays_of(tmp_path / "again"), arrays_of(tmp_path / "straight"))


@pytest.mark.slow
def test_other_weights_under_the_same_name_are_refused(tmp_path):
    model = {"weights": str(tmp_path / "first")}
    train(tmp_path / "first", steps=2)
    train(tmp_path / "run", model=model)
    for step in (2, 4):  # as if killed before the first checkpoint
        (tmp_path / f"run/checkpoints/{step}").rename(tmp_path / f"gone_{step}")
    (tmp_path / "first").rename(tmp_path / "moved")
    train(tmp_path / "first", steps=2, seed=5)
    with pytest.raises(ValueError, match=r"must be the weights that the run in .* beg"):
        train(tmp_path / "run", model=model)


@pytest.mark.slow
def test_any_mesh_starts_alike(first, tmp_path):
    fields = {"steps": 1, "optimizer.learning_rate": 0.0}
    model = {"weights": str(first)}
    train(tmp_path, model=model, **fields, **{"mesh.data": 2, "mesh.fsdp": 4})
    assert_equal(arrays_of(tmp_path), arrays_of(first))


def test_frozen_layers_stay_and_have_no_moments(first, tmp_path):
    model = {"weights": str(first), "freeze": ("hidden/", "^BatchNorm")}
    with pytest.raises(ValueError, match=r"freeze must match .*'\^BatchNorm' matches"):
        train(tmp_path, model=model)
    assert not any(tmp_path.iterdir())
    model["freeze"] = ("hidden/",)
    train(tmp_path, model=model)
    before, after = arrays_of(first), arrays_of(tmp_path)
    np.testing.assert_array_equal(after["hidden/kernel"], before["hidden/kernel"])
    assert np.abs(after["head/kernel"] - before["head/kernel"]).max() > 1e-3
    meta = tmp_path / "checkpoints/4/meta/metadata"
    stored = json.loads(meta.read_text())["arrays"]
    moments = [path for path in stored if path.startswith("opt_state") and "mu" in path]
    assert any("head/kernel" in path for path in moments)
    assert not any("hidden/kernel" in path for path in moments)


@pytest.mark.slow
def test_factors_scale_the_updates(first, tmp_path):
    fields = {"steps": 1, "optimizer.weight_decay": 0.0}
    model, before = {"weights": str(first)}, arrays_of(first)
    train(tmp_path / "one", model=model, **fields)
    factors = (("^head/", 0.25), ("head|hidden", 2.0))
    train(tmp_path / "two", model=model, factors=factors, **fields)
    one, two = arrays_of(tmp_path / "one"), arrays_of(tmp_path / "two")
    for path, factor in (("head/kernel", 0.25), ("hidden/kernel", 2.0)):
        np.testing.assert_allclose(
            two[path] - before[path], factor * (one[path] - before[path]), atol=1e-6
        )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": {"freeze": ("hiden/kernal",)}}, r"near it are hidden/kernel"),
        ({"model": {"freeze": (".",)}}, r"freeze must leave something to train; .* 3 "),
        ({"model": {"freeze": ("(",)}}, r"freeze must be regular expressions .*'\('"),
        ({"factors": (("tables", 2.0),)}, r"factors must match some .*'tables' matche"),
        ({"factors": (("head/", 0.0),)}, r"factors must be finite numbers above 0; go"),
        ({"factors": ("head/",)}, r"must be pairs \(pattern, factor\).*got 'head/'"),
        ({"model": {"weights": "runs/none"}}, r"runs/none: must be NAME:FILE, a publ"),
        ({"model": {"weights": "mobilefacenet:f"}}, r"or a run of toy; got those of a"),
        ({"model": {"weights": 3}}, r"model.weights must be of type str; got 3"),
        ({"extend": True}, r"--extend: --workdir must hold the run that goes on"),
    ],
)
def test_bad_fields_are_refused_before_anything_is_written(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        train(tmp_path / "run", **fields)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_finished_run_goes_on_for_more_steps(tmp_path):
    """Under a schedule that does not depend on the steps: as if it had been longer."""
    fields = {"optimizer.schedule": "constant"}
    straight = train(tmp_path / "straight", steps=4, **fields)
    train(tmp_path / "run", steps=2, **fields)
    with pytest.raises(ValueError, match=r"steps is 2 .* has 4; add --extend to train"):
        train(tmp_path / "run", steps=4, **fields)
    assert train(tmp_path / "run", steps=4, extend=True, **fields) == straight
    assert_equal(arrays_of(tmp_path / "run"), arrays_of(tmp_path / "straight"))
    with pytest.raises(ValueError, match="steps is 4 while this config has 3; take"):
        train(tmp_path / "run", steps=3, extend=True, **fields)
    assert train(tmp_path / "run", steps=4, **fields)["step"] == 4


@pytest.mark.slow
def test_batch_statistics_of_frozen_norms_do_not_move(tmp_path):
    """Nor does training read those of the batch there."""
    import flax.linen as nn
    import jax.numpy as jnp

    from kprpe_jax.layers.batch_norm import BatchNorm
    from kprpe_jax.training.by_path import freeze_loss

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = BatchNorm(name="norm")(nn.Dense(3, name="first")(x), train=train)
            return BatchNorm(affine=False, name="bare")(x, train=train)

    x = jax.random.normal(jax.random.key(0), (8, 3))
    variables = Net().init(jax.random.key(1), x, train=True)
    params, stats = {"backbone": variables["params"]}, variables["batch_stats"]

    def loss(params, collections, batch, rng, *, train):
        out, new = Net().apply(
            {"params": params["backbone"], **collections},
            batch,
            train=train,
            mutable=["batch_stats"],
        )
        return jnp.sum(out**3), (new, out)

    def run(*patterns):
        graded = jax.grad(freeze_loss(loss, patterns), has_aux=True)
        collections = {"batch_stats": stats}
        grads, (new, out) = graded(params, collections, x, None, train=True)
        return grads["backbone"], new["batch_stats"], out

    grads, new, out = run("backbone/norm/", "backbone/bare")
    frozen = Net().apply(variables, x, train=False)
    np.testing.assert_allclose(out, frozen, atol=1e-6)
    assert_equal(flatten_with_paths(new), flatten_with_paths(stats))
    assert not np.any(grads["norm"]["scale"])
    assert np.any(grads["first"]["kernel"])
    _, new, _ = run("norm/scale")  # its bias is trained: the norm is not frozen
    assert not np.array_equal(new["norm"]["mean"], stats["norm"]["mean"])
    assert not np.array_equal(new["bare"]["mean"], stats["bare"]["mean"])
