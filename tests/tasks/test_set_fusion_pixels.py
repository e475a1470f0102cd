"""Set fusion from pixels: a frozen backbone, and one that learns along."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax import tasks
from kprpe_jax.augmentation.recipe import make_recipe
from kprpe_jax.data.face_features import write_features
from kprpe_jax.data.faces import open_faces
from kprpe_jax.data.feature_rows import feature_rows
from kprpe_jax.tasks import growing_probes, image_sets
from kprpe_jax.training.state import TrainState
from kprpe_jax.weights.extractor import Extractor, Features
from tests.quick import quick_jit
from tests.tasks import drawn_features, drawn_people
from tests.tasks.tiny import one_device

SIZE, D = drawn_people.SIZE, 12


def _extract(variables, images):
    """Brightness of four squares, scaled by what may be learned."""
    squares = images.reshape(len(images), 2, SIZE // 2, 2, SIZE // 2, 3).mean((2, 4))
    flat = squares.reshape(len(images), D)
    statistics = jnp.stack([images.mean((1, 2)), images.std((1, 2))], -1)
    return Features(variables["params"]["gain"] * flat, statistics)


EXTRACTOR = Extractor(
    "squares",
    {"params": {"gain": np.linspace(1, 2, D, dtype=np.float32)}, "batch_stats": {}},
    _extract,
    (SIZE, SIZE),
    "squares",
)


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A function from changes to a config on the drawn people's pictures."""
    images = drawn_people.data_dir()
    (tmp_path / "people").symlink_to(f"{images}/people")
    people = open_faces(images, "people", "train", image_size=(SIZE, SIZE))
    made = feature_rows(EXTRACTOR, copies=1, recipe=make_recipe("none"))
    rows = made(EXTRACTOR.variables, people)
    options = dict(data_dir=tmp_path, sizes=EXTRACTOR.sizes(), origin={})
    write_features(rows, name="squares", **options)
    monkeypatch.setattr(image_sets, "open_extractor", lambda *a, **k: EXTRACTOR)

    def make(**changes):
        pixels = {
            "data.dir": str(tmp_path),
            "data.input": "pixels",
            "data.name": "people",
            "data.features": "squares",
            "augmentation.changes": {},
            "evals.features": "squares",
            "evals.identities": (8, 12),
            "evals.copies": 2,
            "evals.sizes": (1, 4),
        }
        return drawn_features.make_config("average", **{**pixels, **changes})

    return make


@pytest.mark.slow
def test_a_trained_backbone_gets_a_gradient_and_is_evaluated_anew(config, monkeypatch):
    monkeypatch.setattr(
        growing_probes, "feature_rows",
        lambda *a, **k: feature_rows(*a, **{**k, "recipe": make_recipe("none")}),
    )  # fmt: skip
    task = tasks.build(config(**{"backbone.trained": True}), one_device())
    variables = dict(task.init(jax.random.key(0)))
    params = variables.pop("params")
    assert set(params) == {"fusion", "backbone"}
    batch = drawn_features.batch_of(task)
    task.check_batch(batch)

    def loss(params):
        return task.loss(params, variables, batch, jax.random.key(1), train=True)

    gradients, _ = quick_jit(jax.grad(loss, has_aux=True))(params)
    assert np.abs(gradients["backbone"]["gain"]).max() > 1e-4
    state = TrainState(0, params, variables, None, None, None)
    first = task.evaluators["probes"](state, one_device())
    assert set(first) >= {"rank1_1", "rank1_4", "tar_at_far_1e-3_4"}
    blind = {**params, "backbone": {"gain": jnp.eye(D)[0]}}  # sees one number
    second = task.evaluators["probes"](state.replace(params=blind), one_device())
    assert second["tar_at_far_1e-3_4"] < first["tar_at_far_1e-3_4"]


@pytest.mark.slow
def test_a_frozen_backbone_stays_in_the_collections(config):
    task = tasks.build(config(), one_device())
    variables = dict(task.init(jax.random.key(0)))
    params = variables.pop("params")
    assert set(params) == {"fusion"}
    batch = drawn_features.batch_of(task)
    run = quick_jit(
        lambda v, batch: task.loss(params, v, batch, jax.random.key(1), train=True)
    )
    loss, (after, _) = run(variables, batch)
    jax.tree.map(np.testing.assert_array_equal, after, variables)
    assert 0 < loss < 1
    # What is read from images is what was computed from them before.
    stored = config(**{"data.input": "features", "data.name": "none"})
    other = tasks.build(stored, one_device())
    features = _extract(EXTRACTOR.variables, batch["image"] / 127.5 - 1)
    rows = {
        "embedding": np.float32(features.embeddings),
        "statistics": np.zeros((64, 3, 2), np.float32),
        "label": batch["label"],
        "id": batch["id"],
    }
    want, _ = quick_jit(
        lambda rows: other.loss(params, {}, rows, jax.random.key(1), train=True)
    )(rows)
    np.testing.assert_allclose(loss, want, rtol=1e-4)


def test_another_backbone_than_that_of_the_features_is_refused(config, monkeypatch):
    narrow = EXTRACTOR._replace(
        extract=lambda v, x: Features(x[:, 0, 0], jnp.zeros((len(x), 3, 2)))
    )
    monkeypatch.setattr(image_sets, "open_extractor", lambda *a, **k: narrow)
    with pytest.raises(
        ValueError, match=r"of \(12, 3\); got \(3, 3\); precompute with"
    ):
        tasks.build(config(), one_device())
