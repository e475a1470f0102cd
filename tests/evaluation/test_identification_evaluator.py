"""A network of random sums finds patterns, unless they are cropped or attacked."""

import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.core.mesh import make_mesh
from kprpe_jax.data.faces import FaceRows
from kprpe_jax.evaluation.evaluators.identification import build
from tests.evaluation.functions import face_data, function_recognizer
from tests.tasks import synthetic_people

SIZE = (synthetic_people.SIZE,) * 2


@pytest.fixture(scope="module")
def people():
    return face_data(synthetic_people.data_dir(), size=SIZE, batch_size=16)


@pytest.fixture(scope="module")
def recognizer():
    """Random sums of pixels: patterns differ in them, and every pixel has a say."""
    kernel = np.random.default_rng(0).normal(size=(3 * synthetic_people.SIZE**2, 16))
    kernel = jnp.asarray(kernel, jnp.float32)

    def call(variables, images, keypoints):
        return variables * images.reshape(len(images), -1) @ kernel

    return function_recognizer(call, SIZE, jnp.float32(1))


def mesh():
    return make_mesh({"data": -1, "fsdp": 1, "class": 1})


@pytest.mark.slow
def test_patterns_are_found_and_alterations_hide_them(people, recognizer):
    kinds = ("plain", "crop", "adversarial")

    def run(kind):
        return build(people, dataset="people", queries=kind)(recognizer, mesh())

    got = {kind: run(kind) for kind in kinds}
    count = synthetic_people.PEOPLE * synthetic_people.IMAGES
    for result in got.values():
        assert result["queries"] == count
        assert result["p_at_1_with_own"] >= result["p_at_1"]
        assert result["map_at_r"] <= result["r_precision"] + 1e-9
    assert got["plain"]["map_at_r"] > 0.9
    assert got["crop"]["map_at_r"] < 0.6
    assert got["adversarial"]["map_at_r"] < 0.6
    assert run("crop") == got["crop"]


def test_strangers_are_no_queries(people, recognizer, monkeypatch):
    labels = FaceRows.labels
    monkeypatch.setattr(
        FaceRows, "labels", lambda self: np.where((x := labels(self)) < 3, -1, x)
    )
    result = build(people, dataset="people")(recognizer, mesh())
    assert result["queries"] == (synthetic_people.PEOPLE - 3) * synthetic_people.IMAGES


def test_errors(people, monkeypatch):
    with pytest.raises(ValueError, match="queries must be one of .*; got 'hat'"):
        build(people, dataset="people", queries="hat")
    monkeypatch.setattr(FaceRows, "labels", lambda self: np.arange(len(self)))
    with pytest.raises(ValueError, match="somebody must have two images"):
        build(people, dataset="people")
