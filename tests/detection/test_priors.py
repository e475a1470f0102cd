"""Anchors against loops over cells; what offsets mean."""

import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.detection.priors import (
    ALIGNER_ANCHORS,
    RETINAFACE_ANCHORS,
    Anchors,
    decode_boxes,
    decode_keypoints,
    make_priors,
)


@pytest.mark.parametrize("size", [(64, 64), (33, 50), (1, 1)])
def test_equals_the_loops(size):
    height, width = size
    want = []
    for sides, stride in zip(*RETINAFACE_ANCHORS, strict=True):
        for row in range(int(np.ceil(height / stride))):
            for column in range(int(np.ceil(width / stride))):
                for side in sides:
                    x, y = (column + 0.5) * stride, (row + 0.5) * stride
                    want.append([x / width, y / height, side / width, side / height])
    np.testing.assert_allclose(make_priors(size, RETINAFACE_ANCHORS), want, rtol=1e-6)


def test_counts():
    assert len(make_priors((160, 160), ALIGNER_ANCHORS)) == 1050  # KP-RPE, Supp. 3
    assert len(make_priors((1, 1), ALIGNER_ANCHORS)) == 6
    assert len(make_priors((8000, 8000), Anchors(((32,),), (32,)))) == 250**2


def test_no_offset_is_the_anchor_itself():
    priors = make_priors((40, 80), RETINAFACE_ANCHORS)
    boxes = decode_boxes(jnp.zeros((2, len(priors), 4)), priors)
    assert boxes.shape == (2, len(priors), 4)
    center, size = priors[:, :2], priors[:, 2:]
    want = np.concatenate([center - size / 2, center + size / 2], axis=1)
    np.testing.assert_allclose(boxes[1], want, atol=1e-6)
    points = decode_keypoints(jnp.zeros((2, len(priors), 6)), priors)
    want = np.repeat(center[:, None], 3, axis=1)
    np.testing.assert_allclose(points[0], want, atol=1e-6)


def test_offsets_are_tenths_of_the_anchor_and_fifths_of_logarithms(rng):
    priors = np.array([[0.5, 0.4, 0.2, 0.1]], np.float32)
    offsets = jnp.array([[1.0, -2.0, 5.0, -5.0]])
    box = np.asarray(decode_boxes(offsets, priors))[0]
    np.testing.assert_allclose((box[:2] + box[2:]) / 2, [0.52, 0.38], atol=1e-6)
    want = [0.2 * np.e, 0.1 / np.e]
    np.testing.assert_allclose(box[2:] - box[:2], want, atol=1e-6)
    points = decode_keypoints(offsets, priors)[0]
    np.testing.assert_allclose(points, [[0.52, 0.38], [0.6, 0.35]], atol=1e-6)
