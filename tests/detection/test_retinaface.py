"""The detector's shapes, parts and options, on tiny widths."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.detection.detections import (
    Detections,
    decode_detections,
    largest_face,
    merge_close_ups,
)
from kprpe_jax.detection.priors import RETINAFACE_ANCHORS, make_priors
from kprpe_jax.detection.retinaface import (
    Heads,
    RetinaFace,
    enlarge_nearest,
    prepare_pixels,
)
from tests.alignment.tiny import TINY, random_variables
from tests.quick import quick_jit


def outputs_of(size, **fields):
    model = RetinaFace(**{**TINY, **fields})
    images = jnp.zeros((2, *size, 3))
    return jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), images)[0])


@pytest.mark.slow
@pytest.mark.parametrize("size", [(33, 50), (8000, 8000)])
def test_as_many_outputs_as_anchors(size):
    heads = outputs_of(size, num_keypoints=3, dtype=jnp.bfloat16)
    count = sum(
        2 * -(-size[0] // stride) * -(-size[1] // stride)
        for stride in RETINAFACE_ANCHORS.strides
    )
    shapes = [h.shape for h in heads]
    assert shapes == [(2, count, 4), (2, count, 2), (2, count, 6)]
    assert {h.dtype for h in heads} == {jnp.dtype(jnp.float32)}


@pytest.mark.slow
def test_one_pixel_and_training_are_finite(rng):
    model = RetinaFace(**TINY)
    images = jnp.asarray(rng.uniform(-1, 1, size=(2, 1, 1, 3)), jnp.float32)
    variables = random_variables(model, rng)

    train = quick_jit(partial(model.apply, train=True, mutable=["batch_stats"]))
    heads, state = train(variables, images)
    assert heads.boxes.shape == (2, 6, 4)
    leaves = jax.tree.leaves((heads, state))
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    before, after = (jax.tree.leaves(s["batch_stats"]) for s in (variables, state))
    assert all((a != b).any() for a, b in zip(before, after, strict=True))


def test_pixels_by_name():
    images = jnp.array([1.0, 0.0, -1.0]).reshape(1, 1, 1, 3)
    np.testing.assert_allclose(prepare_pixels(images, "rgb").ravel(), [1, 0, -1])
    np.testing.assert_allclose(prepare_pixels(images, "bgr").ravel(), [-1, 0, 1])
    got = prepare_pixels(images, "bgr_minus_mean").ravel()
    np.testing.assert_allclose(got, [-104, 127.5 - 117, 255 - 123])
    with pytest.raises(ValueError, match="pixels must be one of rgb, .*; got 'gray'"):
        prepare_pixels(images, "gray")


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (3, 3)])
def test_nearest_takes_the_floor(size):
    x = jnp.arange(12.0).reshape(1, 3, 4, 1)
    got = enlarge_nearest(x, size)
    for row, column in np.ndindex(size):
        want = x[0, row * 3 // size[0], column * 4 // size[1]]
        np.testing.assert_array_equal(got[0, row, column], want)


def heads_with(scores, size=(32, 32)):
    """Raw outputs whose boxes are the anchors themselves."""
    count = len(make_priors(size, RETINAFACE_ANCHORS))
    logits = np.zeros((len(scores), count, 2), np.float32)
    logits[..., 1] = -20
    for image, wanted in enumerate(scores):
        for anchor, logit in wanted.items():
            logits[image, anchor, 1] = logit
    return Heads(
        jnp.zeros((len(scores), count, 4)),
        jnp.asarray(logits),
        jnp.zeros((len(scores), count, 10)),
    )


def test_faces_of_each_image_best_first():
    # Anchor 0 (10 px) and 1 (20 px) share a cell, 30 lies far from both.
    heads = heads_with([{0: 2.0, 30: 3.0}, {}, {0: 2.0, 1: 4.0}])
    decode = partial(decode_detections, size=(32, 32), max_faces=3, max_overlap=0.2)
    faces = quick_jit(decode)(heads)
    assert faces.mask.sum(1).tolist() == [2, 0, 1]
    priors = make_priors((32, 32), RETINAFACE_ANCHORS)
    np.testing.assert_allclose(faces.keypoints[0, 0, 2], priors[30, :2], atol=1e-6)
    np.testing.assert_allclose(faces.scores[0, :2], jax.nn.sigmoid(jnp.array([3, 2.0])))
    width = faces.boxes[2, 0, 2] - faces.boxes[2, 0, 0]
    np.testing.assert_allclose(width, 20 / 32, atol=1e-6)
    assert not np.asarray(faces.boxes)[~np.asarray(faces.mask)].any()

    keypoints, found = quick_jit(largest_face)(faces)
    assert found.tolist() == [True, False, True]
    assert not keypoints[1].any()
    np.testing.assert_allclose(keypoints[2, 0], priors[1, :2], atol=1e-6)


def test_faces_seen_whole_in_a_small_copy():
    """Of what lies in them nothing is left; small ones are not asked for there."""

    def faces(boxes, mask):
        boxes = jnp.asarray(boxes, jnp.float32)[None]
        points = jnp.broadcast_to(boxes[:, :, None, :2], (1, len(mask), 5, 2))
        return Detections(
            boxes, points, jnp.full((1, len(mask)), 0.9), jnp.array([mask])
        )

    fine = faces(
        [[0.2, 0.2, 0.4, 0.4], [0.5, 0.5, 0.8, 0.8], [0.7, 0, 0.9, 0.2], [0, 0, 1, 1]],
        [True, True, True, False],
    )
    # One face holds the first and a third of the second; the others do not count.
    coarse = faces(
        [[0.1, 0.1, 0.65, 0.7], [0.7, 0, 0.9, 0.2], [0, 0, 1, 1]], [True, True, False]
    )
    joined = merge_close_ups(fine, coarse, 0.5)
    assert joined.mask.tolist() == [[False, True, True, False, True, False, False]]
    np.testing.assert_array_equal(joined.boxes[0, 4], coarse.boxes[0, 0])
    keypoints, _ = largest_face(joined)
    np.testing.assert_array_equal(keypoints, coarse.keypoints[:, 0])


def test_outputs_of_another_size_are_named():
    with pytest.raises(
        ValueError, match="images of 64 x 64 have 168 anchors; got .*42"
    ):
        decode_detections(heads_with([{}]), (64, 64), max_faces=1)
