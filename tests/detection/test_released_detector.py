"""The released detector on real photos."""

import io
import tarfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from kprpe_jax import registry
from kprpe_jax.alignment.align import align_faces
from kprpe_jax.detection.detections import decode_detections, largest_face
from kprpe_jax.detection.detector import retinaface_detector
from kprpe_jax.detection.photos import detect_photos
from kprpe_jax.evaluation.landmarks import (
    eye_distance,
    normalized_errors,
    summarize_errors,
)
from kprpe_jax.weights import import_weights

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
WEIGHTS = DATA / "weights" / "retinaface_mnet025.npz"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not WEIGHTS.is_file(), reason=f"no weights at {WEIGHTS}"),
]


def read(source, size=None):
    """float32 [H, W, 3] in [-1, 1]."""
    image = Image.open(source).convert("RGB")
    if size is not None:
        image = image.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32) / 127.5 - 1


@pytest.fixture(scope="module")
def detect():
    model = registry.network("retinaface_mnet025").make()
    variables = import_weights(model, WEIGHTS)

    @jax.jit
    def run(images):
        heads = model.apply(variables, images)
        return largest_face(decode_detections(heads, images.shape[1:3], max_faces=5))

    return run


def test_aligned_photos_look_like_the_reference_aligners(detect):
    photos = sorted((DATA / "photos" / "images").glob("*.png"))
    assert photos
    for path in photos:
        photo = jnp.asarray(read(path))[None]
        keypoints, found = detect(photo)
        assert bool(found[0]), path.name
        want = read(DATA / "photos" / "aligned_images" / path.name)
        got = np.asarray(align_faces(photo, keypoints).images[0])
        # Another, larger detector: points differ by a pixel or two.
        assert np.abs(got - want).mean() < 0.1, path.name
        assert np.corrcoef(got.ravel(), want.ravel())[0, 1] > 0.92, path.name


def test_error_on_labeled_faces_is_that_of_the_released_weights(detect):
    labels = np.load(DATA / "landmarks5" / "lfw150_points.npz")
    count, side = 100, 250
    images = []
    with tarfile.open(DATA / "landmarks5" / "lfw150_images.tar") as archive:
        for name in labels["names"][:count]:
            name = name.decode() if isinstance(name, bytes) else str(name)
            file = io.BytesIO(archive.extractfile(name).read())
            images.append(read(file, (side, side)))
    keypoints, found = map(
        np.concatenate,
        zip(
            *(detect(jnp.asarray(images[i : i + 20])) for i in range(0, count, 20)),
            strict=True,
        ),
    )
    labeled = labels["points250"][:count]
    errors = normalized_errors(
        keypoints * side, labeled, eye_distance(labeled), found=found
    )
    result = summarize_errors(errors)
    assert result["missing"] == 0
    # 6.8 % over all 500 of them.
    assert result["median"] < 0.075, result


def test_face_that_fills_a_large_photo():
    """Enlarged four times, the same points are found."""
    model = registry.network("retinaface_mnet025").make()
    variables = import_weights(model, WEIGHTS)
    detector = retinaface_detector(model, variables, max_faces=4, min_score=0.5)
    photos = sorted((DATA / "photos" / "images").glob("*.png"))
    small = [Image.open(path).convert("RGB") for path in photos]
    small = [photo for photo in small if photo.size == (256, 256)]
    assert small
    found = []
    for size in (256, 1024):
        arrays = [("", np.asarray(photo.resize((size, size)))) for photo in small]
        found.append(
            list(detect_photos(detector, arrays, batch_size=2, order="largest"))
        )
    for one, large in zip(*found, strict=True):
        errors = normalized_errors(
            large.keypoints[:1], one.keypoints[:1], eye_distance(one.keypoints[:1])
        )
        assert errors[0] < 0.05


def test_noise_and_black_hold_no_face(detect):
    noise = np.random.default_rng(0).uniform(-1, 1, size=(1, 250, 250, 3))
    images = np.concatenate([noise, np.full((1, 250, 250, 3), -1)]).astype(np.float32)
    keypoints, found = detect(jnp.asarray(images))
    assert not found.any()
    assert not keypoints.any()
