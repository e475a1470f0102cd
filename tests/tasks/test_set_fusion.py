"""Set fusion: the pairs of sets, the drawn N, faults of config and data, a real run."""

import jax
import numpy as np
import pytest

from kprpe_jax import tasks
from kprpe_jax.data.face_features import read_features
from kprpe_jax.losses.set_fusion import class_means
from kprpe_jax.tasks import set_fusion
from kprpe_jax.training import loop
from tests.fusion.tiny import draw_sets, draw_variables, tiny_model
from tests.quick import quick_jit
from tests.tasks import drawn_features
from tests.tasks.tiny import one_device


def loss_at(config, rng):
    task = tasks.build(config, one_device())
    variables = dict(task.init(jax.random.key(0)))
    params = variables.pop("params")
    batch = drawn_features.batch_of(task)
    run = quick_jit(lambda p, rng: task.loss(p, variables, batch, rng, train=True))
    return [run(params, key) for key in rng]


@pytest.mark.slow
def test_pairs_are_streams_and_unions(rng):
    """`streamed` is one set after the other, `at_once` all images together."""
    model = tiny_model(drop_path_rate=0.0)
    variables = draw_variables(model, rng)
    one, other = draw_sets(rng, 3), draw_sets(rng, 3)
    other = other._replace(mask=np.array([[1, 1, 0], [1, 0, 0]], bool))
    pairs = jax.tree.map(lambda *x: np.stack(x, 1), one, other)
    fused, _ = quick_jit(
        lambda pairs: set_fusion.fuse_pairs(
            model, variables, pairs, jax.random.key(0), train=False
        )
    )(pairs)

    @quick_jit
    def stream(*parts):
        state = model.init_state(2)
        for part in parts:
            state = model.apply(variables, state, part, method="update")
        return model.apply(variables, state, method="finalize").embeddings

    union = jax.tree.map(lambda *x: np.concatenate(x, 1), one, other)
    want = {
        "first": stream(one),
        "second": stream(other),
        "streamed": stream(one, other),
        "at_once": stream(union),
    }
    for name, value in want.items():
        np.testing.assert_allclose(fused[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_padding_to_sizes_changes_nothing():
    """The same N of the same images, padded to 2 or 4 or always to 4."""
    keys = [jax.random.key(n) for n in range(3)]
    few = loss_at(drawn_features.make_config(**{"data.padded_sizes": (2, 4)}), keys)
    one = loss_at(drawn_features.make_config(), keys)
    for (loss, (own, _)), (want, (wanted, _)) in zip(few, one, strict=True):
        np.testing.assert_allclose(loss, want, rtol=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4), own, wanted)
    assert len({float(loss) for loss, _ in few}) > 1  # other N, other loss


def test_centers_are_means_or_a_file(tmp_path):
    config = drawn_features.make_config("average")
    clean = read_features(drawn_features.data_dir(), "drawn", "clean")
    means = class_means(clean.embeddings, clean.labels, num_classes=10)
    data = set_fusion.image_sets.open_data(config, one_device())
    np.testing.assert_allclose(data.centers, means, atol=1e-6)
    path = tmp_path / "centers.npz"
    np.savez(path, weight=np.float32(3 * means))
    stored = drawn_features.make_config("average", **{"loss.centers": str(path)})
    data = set_fusion.image_sets.open_data(stored, one_device())
    np.testing.assert_allclose(data.centers, 3 * means, atol=1e-5)
    np.savez(path, weight=np.zeros((10, 3), np.float32))
    with pytest.raises(ValueError, match=r"one array of class centers \[K, 8\]; got"):
        tasks.build(stored, one_device())


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"fusion.method": "best"}, "method must be cluster_aggregate or one of avera"),
        ({"fusion.variant": "mine"}, "and variant one of paper, official; got"),
        ({"data.input": "video"}, "input must be one of features, pixels; got 'video'"),
        ({"data.padded_sizes": (2, 3)}, r"end with config.data.images_per_set.*\(2, 3"),
        ({"data.batch_size": 12}, "must be a multiple of 2 x images_per_set x devices"),
        ({"data.features": "absent"}, "must be a prepared data set"),
    ],
)
def test_faults_of_the_config_are_described(changes, match):
    with pytest.raises(ValueError, match=match):
        tasks.build(drawn_features.make_config(**changes), one_device())


def test_faults_of_the_data_are_described():
    task = tasks.build(drawn_features.make_config("average"), one_device())
    batch = drawn_features.batch_of(task)
    task.check_batch(batch)
    labels = batch["label"]
    assert (labels < 8).all()  # the others are for evaluation
    assert (labels.reshape(8, 8) == labels[::8, None]).all()
    mixed, stranger, broken = dict(batch), dict(batch), dict(batch)
    mixed["label"] = np.roll(labels, 1)
    stranger["label"] = np.full_like(labels, 77)
    broken["embedding"] = np.where(batch["id"][:, None] == batch["id"][3], np.inf, 1)
    for bad, match in (
        (mixed, "8 rows in turn must show one person; the batch of id"),
        (stranger, "label 77 .* has none; precompute the features"),
        (
            broken,
            rf"features must be finite; those of the rows with id \[{batch['id'][3]}",
        ),
    ):
        with pytest.raises(ValueError, match=match):
            task.check_batch(bad)


@pytest.mark.slow
def test_a_run_learns_whom_to_trust(tmp_path):
    """Style tells the noise: CAFace ends ahead of the average; one compilation."""
    learned = {
        "steps": 100,
        "optimizer.learning_rate": 1e-2,
        "optimizer.boundaries": (80,),
        "log.every_steps": 20,
        "evals.in_training": ("probes",),
        "evals.every_steps": 100,
        "evals.sizes": (8,),
    }
    ours = loop.train(drawn_features.make_config(**learned), tmp_path)
    config = drawn_features.make_config("average")
    average = loss_at(config, [jax.random.key(n) for n in range(8)])
    assert ours["compilations"] == 1
    wanted = np.mean([metrics["template"] for _, (_, metrics) in average])
    assert ours["template"] < 0.7 * wanted
    # Equal vectors have a distance of 2e-5 over their norm.
    assert max(metrics["permutation"] for _, (_, metrics) in average) < 1e-4
    assert 0 <= ours["probes/entropy"] <= np.log(8)
    assert 0 <= ours["probes/tar_at_far_1e-3_8"] <= 1
