"""A network of random sums finds patterns, unless they are cropped or attacked."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.core.mesh import make_mesh
from kprpe_jax.data.faces import open_faces
from kprpe_jax.evaluation.altered_queries import make_evaluators
from tests.tasks import drawn_people

STATE = SimpleNamespace(params=jnp.float32(1), collections={})


@pytest.fixture(scope="module")
def people():
    size = (drawn_people.SIZE,) * 2
    return open_faces(drawn_people.data_dir(), "people", "train", image_size=size)


def embed(params, collections, images, keypoints):
    """Random sums of pixels: patterns differ in them, and every pixel has a say."""
    size = 3 * drawn_people.SIZE**2
    kernel = np.random.default_rng(0).normal(size=(size, 16))
    return params * images.reshape(len(images), -1) @ jnp.asarray(kernel, jnp.float32)


@pytest.mark.slow
def test_patterns_are_found_and_alterations_hide_them(people):
    kinds = ("plain", "crop", "adversarial")
    evaluators = make_evaluators(embed, people, kinds, batch_size=16)
    assert list(evaluators) == [f"identify_{kind}" for kind in kinds]
    mesh = make_mesh({"data": -1, "fsdp": 1, "class": 1})
    got = {kind: evaluators[f"identify_{kind}"](STATE, mesh) for kind in kinds}
    count = drawn_people.PEOPLE * drawn_people.IMAGES
    for result in got.values():
        assert result["queries"] == count
        assert result["p_at_1_with_own"] >= result["p_at_1"]
        assert result["map_at_r"] <= result["r_precision"] + 1e-9
    assert got["plain"]["map_at_r"] > 0.9
    assert got["crop"]["map_at_r"] < 0.6
    assert got["adversarial"]["map_at_r"] < 0.6
    again = make_evaluators(embed, people, ("crop",), batch_size=16)
    assert again["identify_crop"](STATE, mesh) == got["crop"]


def test_strangers_are_no_queries(people, monkeypatch):
    labels = people.labels()
    monkeypatch.setattr(people, "labels", lambda: np.where(labels < 3, -1, labels))
    (evaluate,) = make_evaluators(embed, people, ("plain",), batch_size=16).values()
    result = evaluate(STATE, make_mesh({"data": -1, "fsdp": 1, "class": 1}))
    assert result["queries"] == (drawn_people.PEOPLE - 3) * drawn_people.IMAGES


def test_errors(people):
    with pytest.raises(ValueError, match="unknown kind 'hat'; use some of"):
        make_evaluators(embed, people, ("hat",), batch_size=8)
    one_each = people.select(np.unique(people.labels(), return_index=True)[1])
    with pytest.raises(ValueError, match="somebody must have two images"):
        make_evaluators(embed, one_each, batch_size=8)
