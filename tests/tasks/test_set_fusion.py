"""Set fusion: pairs of sets, the sampled N, faults of config and data, a real run."""

import jax
import numpy as np
import pytest

from kprpe_jax import registry, tasks
from kprpe_jax.core.features import take
from kprpe_jax.data.features import read_features, write_features
from kprpe_jax.fusion.cluster_aggregate import ImageSets
from kprpe_jax.fusion.files import save_model
from kprpe_jax.losses.set_fusion import class_means
from kprpe_jax.recognizers import load_fusion
from kprpe_jax.tasks import set_fusion
from kprpe_jax.training import loop
from kprpe_jax.training.runs import save_config
from kprpe_jax.training.state import TrainState
from tests.fusion.tiny import draw_sets, draw_variables, tiny_model
from tests.gallery.tiny import tiny_recognizer
from tests.quick import quick_jit
from tests.tasks import made_features
from tests.tasks.tiny import one_device


def loss_at(config, rng):
    task = tasks.build(config, one_device())
    variables = dict(task.init(jax.random.key(0)))
    params = variables.pop("params")
    batch = made_features.batch_of(task)
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
    few = loss_at(made_features.make_config(**{"data.padded_sizes": (2, 4)}), keys)
    one = loss_at(made_features.make_config(), keys)
    for (loss, (own, _)), (want, (wanted, _)) in zip(few, one, strict=True):
        np.testing.assert_allclose(loss, want, rtol=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4), own, wanted)
    assert len({float(loss) for loss, _ in few}) > 1  # other N, other loss


def test_centers_are_means_or_a_file(tmp_path):
    config = made_features.make_config("average")
    clean = read_features(made_features.data_dir(), "made", "clean")
    means = class_means(clean.features.embeddings, clean.labels, num_classes=10)
    data = set_fusion.image_sets.open_data(config, one_device())
    np.testing.assert_allclose(data.centers, means, atol=1e-6)
    path = tmp_path / "centers.npz"
    np.savez(path, weight=np.float32(3 * means))
    stored = made_features.make_config("average", **{"loss.centers": str(path)})
    data = set_fusion.image_sets.open_data(stored, one_device())
    np.testing.assert_allclose(data.centers, 3 * means, atol=1e-5)
    np.savez(path, weight=np.zeros((10, 3), np.float32))
    with pytest.raises(ValueError, match=r"one array of class centers \[K, 8\]; got"):
        tasks.build(stored, one_device())


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"fusion.method": "best"}, "method must be one of cluster_aggregate, average"),
        ({"fusion.variant": "mine"}, "and variant one of paper, official; got"),
        ({"data.input": "video"}, "input must be one of features, pixels; got 'video'"),
        ({"data.padded_sizes": (2, 3)}, r"end with config.data.images_per_set.*\(2, 3"),
        ({"data.batch_size": 12}, "must be a multiple of 2 x images_per_set x devices"),
        ({"data.features": "absent"}, "must be a prepared data set"),
        ({"evals.probes.type": "pairs"}, "no type 'pairs'; the nearest is growing_p"),
    ],
)
def test_faults_of_the_config_are_described(changes, match):
    with pytest.raises(ValueError, match=match):
        tasks.build(made_features.make_config(**changes), one_device())


def test_faults_of_the_data_are_described():
    task = tasks.build(made_features.make_config("average"), one_device())
    batch = made_features.batch_of(task)
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


def test_probes_of_another_recognizer_are_refused(tmp_path):
    (tmp_path / "made").symlink_to(f"{made_features.data_dir()}/made")
    write_features(
        made_features.rows(np.random.default_rng(1)),
        name="other",
        data_dir=tmp_path,
        shapes={"embedding": (8,), "style": (3, 2)},
        origin={**made_features.ABOUT, "fingerprint": "e" * 64},
    )
    changes = {"data.dir": str(tmp_path), "evals.probes.features": "other"}
    task = tasks.build(made_features.make_config("average", **changes), one_device())
    assert task.origin == {"embed_dim": 8, **made_features.ABOUT}
    state = TrainState(0, {"fusion": {}}, {}, None, None, None)
    with pytest.raises(ValueError, match=r"of other are of none \(weights e.*; got n"):
        task.evaluators["probes"](state, one_device())


@pytest.mark.slow
def test_a_run_is_a_fusion_model_without_its_data(tmp_path):
    config = made_features.make_config()
    loop.train(config, tmp_path / "run")
    with config.unlocked():
        config.data.dir = "nowhere"
    save_config(config, tmp_path / "run")
    file = load_fusion(str(tmp_path / "run"))
    assert file.backbone == made_features.ABOUT["fingerprint"]
    assert file.model.num_clusters == 2
    clean = read_features(made_features.data_dir(), "made", "clean")
    sets = ImageSets(take(clean.features, np.arange(6)[None]), np.ones((1, 6), bool))
    fused = quick_jit(file.model.apply)(file.variables, sets).features
    assert np.isfinite(fused.embeddings).all()
    output = tmp_path / "fusion.safetensors"
    save_model(output, file.model, file.variables, backbone=file.backbone)
    assert load_fusion(str(output)).fingerprint == file.fingerprint
    with pytest.raises(ValueError, match="is of the recognizer [^;]*; got .* .tiny."):
        load_fusion(str(output), tiny_recognizer())
    with pytest.raises(ValueError, match="--fusion average: needs --model"):
        load_fusion("average")
    assert load_fusion("norm", tiny_recognizer()).model.method == "norm_weighted"
    assert registry.resolve(registry.LOAD_FUSION) is load_fusion  # of the protocols


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
        "evals.probes.sizes": (8,),
    }
    ours = loop.train(made_features.make_config(**learned), tmp_path)
    config = made_features.make_config("average")
    average = loss_at(config, [jax.random.key(n) for n in range(8)])
    assert ours["compilations"] == 1
    wanted = np.mean([metrics["template"] for _, (_, metrics) in average])
    assert ours["template"] < 0.7 * wanted
    # Equal vectors have a distance of 2e-5 over their norm.
    assert max(metrics["permutation"] for _, (_, metrics) in average) < 1e-4
    assert 0 <= ours["probes/entropy"] <= np.log(8)
    assert 0 <= ours["probes/tar_at_far_1e-3_8"] <= 1
