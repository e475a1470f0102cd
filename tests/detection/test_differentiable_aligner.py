"""The aligner's mixing, options and gradients, on tiny widths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax import registry
from kprpe_jax.detection.differentiable_aligner import DifferentiableAligner
from kprpe_jax.detection.priors import decode_boxes, decode_keypoints, make_priors
from tests.alignment.tiny import TINY, random_variables
from tests.quick import quick_jit


def make(rng, **fields):
    model = DifferentiableAligner(**TINY, input_size=32, output_size=(16, 16), **fields)
    photos = jnp.asarray(rng.uniform(-1, 1, size=(2, 24, 40, 3)), jnp.float32)
    return model, random_variables(model, rng), photos


@pytest.mark.slow
@pytest.mark.parametrize(("mixer_input", "channels"), [("raw", 15), ("decoded", 16)])
def test_equal_weights_give_the_mean_face(rng, mixer_input, channels):
    model, variables, _ = make(rng, mixer_input=mixer_input)
    out = variables["params"]["aggregator"]["out"]
    assert out["kernel"].shape == (channels, 1)
    out["kernel"] *= 0
    images = jnp.asarray(rng.uniform(-1, 1, size=(2, 32, 32, 3)), jnp.float32)
    run = quick_jit(lambda *args: model.apply(*args, method="find_face"))
    face, heads = run(variables, images)
    priors = make_priors((32, 32), model.anchors)
    np.testing.assert_allclose(face.weights, 1 / len(priors), rtol=1e-5)
    points = decode_keypoints(heads.keypoints, priors).mean(1)
    np.testing.assert_allclose(face.keypoints, points, atol=1e-5)
    boxes = decode_boxes(heads.boxes, priors).mean(1)
    np.testing.assert_allclose(face.box, boxes, atol=1e-5)
    if mixer_input == "raw":
        score = jax.nn.softmax(heads.logits)[..., 1].mean(1)
    else:
        score = jax.nn.softmax(heads.logits.mean(1))[..., 1]
    np.testing.assert_allclose(face.score, score, atol=1e-5)


@pytest.mark.slow
def test_landmarks_are_those_of_the_photo_whatever_its_shape(rng):
    """A wide photo and the square one made of it show the same face."""
    model, variables, photos = make(rng)
    square = jnp.pad(photos, ((0, 0), (8, 8), (0, 0), (0, 0)), constant_values=-1.0)
    run = quick_jit(model.apply)
    wide, whole = (
        jax.tree.map(np.asarray, run(variables, images)) for images in (photos, square)
    )
    np.testing.assert_allclose(
        wide.keypoints * [40, 24] + [0, 8], whole.keypoints * 40, atol=1e-3
    )
    corners = wide.box.reshape(2, 2, 2) * np.array([40, 24]) + np.array([0, 8])
    np.testing.assert_allclose(corners, whole.box.reshape(2, 2, 2) * 40, atol=1e-3)
    np.testing.assert_allclose(wide.images, whole.images, atol=1e-3)


@pytest.mark.slow
def test_gradients_reach_the_photo_and_every_layer_through_the_landmarks(rng):
    model, variables, photos = make(rng)

    def brightness(params, photos):
        face = model.apply({**variables, "params": params}, photos)
        return jnp.square(face.images).sum()

    grade = quick_jit(jax.grad(brightness, (0, 1)))
    by_params, by_photos = grade(variables["params"], photos)
    assert np.isfinite(by_photos).all()
    assert by_photos.any()
    flat = jax.tree_util.tree_leaves_with_path(by_params)
    assert all(np.isfinite(g).all() for _, g in flat)
    # From the first layer on; the class and box heads through the mixer alone.
    moved = {p[1].key for p, g in flat if np.abs(g).max() > 1e-6}
    heads = [f"{head}{n}" for head in ("boxes", "logits", "keypoints") for n in (1, 2)]
    assert moved >= {"out", "block0", "block2", "body"}, moved
    detector = by_params["detector"]
    assert np.abs(detector["body"]["stem"]["conv"]["kernel"]).max() > 1e-6
    assert all(np.abs(detector[name]["bias"]).max() > 0 for name in heads)


@pytest.mark.slow
def test_official_options_stop_the_gradient_and_read_the_resized_photo(rng):
    model, variables, photos = make(rng, **official_fields())

    def total(params):
        return model.apply({**variables, "params": params}, photos).images.sum()

    gradient = quick_jit(jax.grad(total))(variables["params"])
    assert not any(np.asarray(g).any() for g in jax.tree.leaves(gradient))


def official_fields():
    model = registry.network("dfa_mobilenet025").make()
    names = ("mixer_input", "sampled", "align_corners", "stop_gradient", "pixels")
    return {name: getattr(model, name) for name in names}


@pytest.mark.slow
def test_one_pixel_is_finite(rng):
    model, variables, _ = make(rng)
    face = quick_jit(model.apply)(variables, jnp.ones((1, 1, 1, 3)))
    assert all(np.isfinite(leaf).all() for leaf in face)


def test_the_papers_size():
    model = DifferentiableAligner(mixer_input="decoded")
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 112, 112, 3)))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    assert 0.485e6 < count < 0.495e6  # 0.49 M, Table 9


def test_unknown_options_are_named():
    model = DifferentiableAligner(mixer_input="cooked")
    with pytest.raises(
        ValueError, match="mixer_input must be one of raw, decoded; got"
    ):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 160, 160, 3)))
