"""Detectors of tiny networks with random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.detection.detections import decode_detections
from kprpe_jax.detection.detector import retinaface_detector
from kprpe_jax.detection.photos import detect_photos
from kprpe_jax.detection.retinaface import RetinaFace
from tests.alignment.tiny import TINY, random_variables
from tests.detection.stand_in import smooth_photo
from tests.quick import quick_jit


@pytest.fixture(scope="module")
def network():
    model = RetinaFace(**TINY)
    return model, random_variables(model, np.random.default_rng(0))


@pytest.mark.slow
def test_a_small_canvas_is_decoded_as_it_is(network, rng):
    model, variables = network
    detector = retinaface_detector(model, variables, max_faces=3, min_score=0.0)
    assert detector.canvases == (128, 256, 512, 1024)
    photo = rng.integers(0, 256, (128, 128, 3)).astype(np.uint8)
    (found,) = detect_photos(detector, [("a", photo)], batch_size=4, order="score")
    images = jnp.float32(photo[None]) / 127.5 - 1
    want = decode_detections(
        quick_jit(model.apply)(variables, images),
        (128, 128),
        max_faces=3,
        min_score=0.0,
    )
    assert want.mask.all()
    np.testing.assert_allclose(found.scores, want.scores[0], atol=1e-5)
    np.testing.assert_allclose(found.boxes, want.boxes[0], atol=1e-4)
    np.testing.assert_allclose(found.keypoints, want.keypoints[0], atol=1e-4)


@pytest.mark.slow
def test_large_photos_are_detected_at_two_scales(network, rng):
    model, variables = network
    detector = retinaface_detector(
        model, variables, max_faces=3, min_score=0.0, max_side=224
    )
    shapes = jax.eval_shape(detector.detect, jnp.zeros((2, 224, 224, 3)))
    assert shapes.boxes.shape == (2, 6, 4)
    photos = [("a", smooth_photo(rng, 300, 200)), ("b", smooth_photo(rng, 150, 160))]
    for photo in detect_photos(detector, photos, batch_size=2):
        assert 1 <= len(photo.scores) <= 6
        assert np.isfinite(photo.keypoints).all()


def test_its_fingerprint_tells_networks_and_options_apart(network):
    model, variables = network
    changed = jax.tree.map(lambda x: x + 1e-3, variables)
    prints = [
        retinaface_detector(model, values, **options).fingerprint
        for values, options in (
            (variables, {}),
            (changed, {}),
            (variables, dict(min_score=0.6)),
            (variables, dict(max_side=512)),
            (variables, {}),
        )
    ]
    assert len(set(prints[:4])) == 4
    assert prints[0] == prints[4]
