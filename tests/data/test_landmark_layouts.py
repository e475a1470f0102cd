"""Layouts of landmarks: the five keypoints in them, and which points mirror which."""

import numpy as np
import pytest

from kprpe_jax.augmentation.spatial import FACE_MIRROR
from kprpe_jax.data.landmark_layouts import five_keypoints, mirror_order
from kprpe_jax.data.synthetic.identity import Identity
from kprpe_jax.data.synthetic.landmarks import KEYPOINTS, MIRROR, landmarks
from kprpe_jax.detection.face_mesh import FIVE_POINTS, IBUG_POINTS, five_points
from kprpe_jax.detection.mesh_mirror import MESH_MIRROR
from kprpe_jax.geometry.template import FACE_POINTS


@pytest.fixture(scope="module")
def shapes():
    """Landmarks [40, 84, 2] of a face with an open mouth, moved, tilted, uneven."""
    rng = np.random.default_rng(0)
    face = np.asarray(landmarks(Identity(mouth_open=5.0))) / 112
    angle, scale = rng.normal(0, 0.12, 40), rng.normal(1, 0.05, 40)
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1)
    tilted = face @ (scale[:, None, None] * turn.reshape(-1, 2, 2))
    tilted += rng.normal(0, 0.03, (40, 1, 2)) + (0.5, 0)
    return (tilted + rng.normal(0, 0.008, tilted.shape)).astype(np.float32)


def test_keypoints_of_each_layout(shapes, rng):
    face = shapes[0]
    np.testing.assert_array_equal(five_keypoints(face), face[KEYPOINTS])
    five = five_keypoints(face[:68])
    assert np.abs(five[2:] - face[KEYPOINTS[2:]]).max() == 0
    assert np.abs(five[:2] - face[KEYPOINTS[:2]]).max() < 0.02
    mesh = rng.random((468, 2)).astype(np.float32)
    np.testing.assert_allclose(five_keypoints(mesh), five_points(mesh), rtol=1e-6)
    np.testing.assert_array_equal(five_keypoints(face[:5]), face[:5])
    for count in (17, 29):
        assert five_keypoints(mesh[:count]) is None


def test_a_missing_point_that_is_needed(shapes):
    face = shapes[0, :68].copy()
    face[0] = np.nan  # of the jaw
    assert five_keypoints(face) is not None
    face[41] = np.nan
    assert five_keypoints(face) is None


def test_faces_show_which_points_mirror_which(shapes, rng):
    assert mirror_order(shapes) == tuple(MIRROR.tolist())
    assert mirror_order(shapes[:, :68]) == tuple(MIRROR[:68].tolist())
    assert mirror_order(np.float32(FACE_POINTS)[None]) == FACE_MIRROR
    # Other points in another order, some missing.
    chosen = rng.permutation(np.union1d(np.arange(0, 68, 5), MIRROR[:68:5]))
    some = shapes[:, chosen].copy()
    some[rng.random(some.shape[:2]) < 0.2] = np.nan
    order = mirror_order(some)
    np.testing.assert_array_equal(chosen[np.array(order)], MIRROR[chosen])


def test_points_that_do_not_pair(shapes):
    assert mirror_order(shapes[:, [36, 41, 30, 48, 8]]) is None  # one side alone
    shapes = shapes[:, :5].copy()
    shapes[:, 2] = np.nan
    assert mirror_order(shapes) is None


def test_the_mesh_and_its_68_points_are_mirrored_alike():
    mirror, points = np.array(MESH_MIRROR), np.array(IBUG_POINTS)
    np.testing.assert_array_equal(mirror[mirror], np.arange(468))
    assert len({*IBUG_POINTS}) == 68
    np.testing.assert_array_equal(mirror[points], points[MIRROR[:68]])
    five = [mirror[list(group)] for group in FIVE_POINTS]
    for place, group in zip(FACE_MIRROR, five, strict=True):
        assert {*group.tolist()} == {*FIVE_POINTS[place]}
