"""Set fusion from pixels: a frozen backbone, and one that learns along."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax import tasks
from kprpe_jax.augmentation.recipe import make_recipe
from kprpe_jax.backbones.network import Network
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.input_spec import InputSpec
from kprpe_jax.data.faces import open_faces
from kprpe_jax.data.features import write_features
from kprpe_jax.evaluation.feature_rows import (
    about,
    clean_rows,
    degraded_rows,
    row_shapes,
)
from kprpe_jax.tasks import growing_probes, image_sets, networks
from kprpe_jax.training.state import TrainState
from tests.quick import quick_jit
from tests.tasks import made_features, synthetic_people
from tests.tasks.tiny import one_device

SIZE, D = synthetic_people.SIZE, 12


class Squares(Network):
    """Embeds the brightness of four squares, scaled by what may be learned."""

    image_size: tuple[int, int] = (SIZE, SIZE)
    output_dim: int = D
    patch_map = "squares"
    style_maps = ("pixels",)

    def setup(self):
        self.gain = self.param("gain", nn.initializers.ones, (D,))

    @property
    def grid(self):
        return 2, 2

    def feature_maps(self, images, keypoints=None, *, train=False):
        squares = images.reshape(len(images), 2, SIZE // 2, 2, SIZE // 2, 3)
        return {"squares": squares.mean((2, 4)), "pixels": images}

    def embed_map(self, squares, *, train=False):
        return self.gain * squares.reshape(len(squares), D)


RECOGNIZER = Recognizer(
    {"params": {"gain": np.linspace(1, 2, D, dtype=np.float32)}},
    Squares(),
    InputSpec((SIZE, SIZE)),
    "squares",
)
PLAIN = make_recipe("none")


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A function from changes to a config on the synthetic people's pictures."""
    images = synthetic_people.data_dir()
    (tmp_path / "people").symlink_to(f"{images}/people")
    people = open_faces(images, "people", "train", image_size=(SIZE, SIZE))
    given = RECOGNIZER, people, people.labels()
    options = dict(mesh=one_device())
    rows = {
        "clean": clean_rows(*given, mirror="sum", **options),
        "degraded": degraded_rows(*given, copies=1, recipe=PLAIN, **options),
    }
    write_features(
        rows,
        name="squares",
        data_dir=tmp_path,
        shapes=row_shapes(RECOGNIZER, ("embeddings", "style")),
        origin=about(RECOGNIZER),
    )
    monkeypatch.setattr(networks, "load_backbone", lambda config: RECOGNIZER)

    def make(**changes):
        pixels = {
            "data.dir": str(tmp_path),
            "data.input": "pixels",
            "data.name": "people",
            "data.features": "squares",
            "augmentation.changes": {},
            "evals.probes.features": "squares",
            "evals.probes.identities": (8, 12),
            "evals.probes.copies": 2,
            "evals.probes.sizes": (1, 4),
        }
        return made_features.make_config("average", **{**pixels, **changes})

    return make


@pytest.mark.slow
def test_a_trained_backbone_gets_a_gradient_and_is_evaluated_anew(config, monkeypatch):
    monkeypatch.setattr(
        growing_probes, "degraded_rows", partial(degraded_rows, recipe=PLAIN)
    )
    task = tasks.build(config(**{"train_backbone": True}), one_device())
    variables = dict(task.init(jax.random.key(0)))
    params = variables.pop("params")
    assert set(params) == {"fusion", "backbone"}
    batch = made_features.batch_of(task)
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
    batch = made_features.batch_of(task)
    run = quick_jit(
        lambda v, batch: task.loss(params, v, batch, jax.random.key(1), train=True)
    )
    loss, (after, _) = run(variables, batch)
    jax.tree.map(np.testing.assert_array_equal, after, variables)
    assert 0 < loss < 1
    # What is read from images is what was computed from them before.
    stored = config(**{"data.input": "features", "data.name": "none"})
    other = tasks.build(stored, one_device())
    features = jax.jit(Recognizer.features)(
        RECOGNIZER, np.float32(batch["image"] / 127.5 - 1)
    )
    rows = {
        "embedding": np.float32(features.embeddings),
        "style": np.float32(features.style),
        "label": batch["label"],
        "id": batch["id"],
    }
    want, _ = quick_jit(
        lambda rows: other.loss(params, {}, rows, jax.random.key(1), train=True)
    )(rows)
    np.testing.assert_allclose(loss, want, rtol=1e-4)


def test_another_backbone_than_that_of_the_features_is_refused(config, monkeypatch):
    make = config
    moved = RECOGNIZER.replace(variables={"params": {"gain": np.ones(D, np.float32)}})
    monkeypatch.setattr(networks, "load_backbone", lambda config: moved)
    with pytest.raises(ValueError, match=r"of squares are of squares \(weights .*; g"):
        tasks.build(make(), one_device())
    maps = RECOGNIZER.replace(style_maps=("squares", "pixels"))
    monkeypatch.setattr(networks, "load_backbone", lambda config: maps)
    monkeypatch.setattr(image_sets, "check_origin", lambda *a: None)
    with pytest.raises(
        ValueError, match=r"of \[\(12,\), \(3, 2\)\]; got \[\(12,\), \(6, 2\)\]; make"
    ):
        tasks.build(make(), one_device())
