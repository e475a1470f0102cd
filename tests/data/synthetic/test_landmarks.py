"""Landmarks lie on what they name; numbering, mirror pairs, keypoints, alignment."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.data.synthetic.anatomy import express
from kprpe_jax.data.synthetic.identity import Identity, sample_identity
from kprpe_jax.data.synthetic.landmarks import KEYPOINTS, MIRROR, landmarks
from kprpe_jax.data.synthetic.nuisance import Shot
from kprpe_jax.data.synthetic.pose import make_pose, to_face, to_frame
from kprpe_jax.geometry.template import ARCFACE_112

PEOPLE = np.arange(16)


@jax.jit
def points_and_pose(shot):
    """Landmarks of the average face, by themselves and in the picture."""
    face = express(Identity(), shot)
    points = landmarks(face)
    pose = make_pose(Identity(), face, shot)
    frame = to_frame(pose, points)
    back = jnp.stack(to_face(pose, frame[:, 0], frame[:, 1]), -1)
    return points, frame, back


def brightness(faces, number, dx=0.0, dy=0.0):
    """Of the pixel under a landmark, moved by dx and dy pixels; [B]."""
    points = np.floor(faces.landmarks[:, number] * 112 + [dx, dy]).astype(int)
    rows = range(len(points))
    return faces.images[rows, points[:, 1], points[:, 0]].mean(-1)


@pytest.mark.slow
def test_pupils_are_dark_between_bright_whites(render):
    faces = render(PEOPLE, 0)
    for eye in (81, 82):
        pupil = brightness(faces, eye, dy=0.5)
        assert (pupil < 60).all()
        for side in (-5.5, 5.5):
            assert (brightness(faces, eye, dx=side) > pupil + 30).all()


@pytest.mark.slow
def test_lips_are_red_and_an_open_mouth_is_dark_inside(render):
    faces = render(PEOPLE, 0)
    middle = (faces.landmarks[:, 57] + faces.landmarks[:, 66]) / 2 * 112
    x, y = middle.astype(int).T
    lip = faces.images[range(16), y, x].astype(int)
    x, y = (faces.landmarks[:, 8] * 112 - [0, 6]).clip(0, 111).astype(int).T
    chin = faces.images[range(16), y, x].astype(int)
    smooth = jax.vmap(lambda i: sample_identity(0, i))(PEOPLE).beard < 0
    redness = (lip[:, 0] / lip[:, 1]) / (chin[:, 0] / chin[:, 1])
    assert (redness[smooth] > 1.08).all()
    opened = render(PEOPLE, 0, mouth_open=1.0)
    assert (brightness(opened, 66, dy=-1.5) < 110).all()


@pytest.mark.slow
def test_jaw_and_hairline_are_edges(render):
    faces = render(PEOPLE, 0, background_light=1.0)
    # Off the face at the sides there is hair, neck or background, but not skin.
    points = faces.landmarks * 112
    for number in (3, 13):
        out = 3.0 * np.sign(points[:, number, 0] - 56)
        x, y = points[:, number].T
        inside = faces.images[range(16), y.astype(int), (x - out).astype(int)]
        outside = faces.images[range(16), y.astype(int), (x + out).astype(int)]
        apart = np.abs(inside.astype(int) - outside.astype(int)).sum(-1)
        assert np.mean(apart > 20) > 0.9


@pytest.mark.slow
def test_closed_lids_meet_and_hide_the_eye(render):
    opened, closed = render(PEOPLE, 0), render(PEOPLE, 0, eyes_closed=1.0)
    upper, lower = closed.landmarks[:, 37, 1], closed.landmarks[:, 41, 1]
    assert np.abs(upper - lower).max() * 112 < 0.6
    # Where the gray white was there is colored skin.
    x, y = (opened.landmarks[:, 81] * 112 + [5.5, 0]).astype(int).T
    warm = [
        f.images[range(16), y, x].astype(int) @ [1, 0, -1] for f in (opened, closed)
    ]
    assert (warm[1] > warm[0] + 5).all()


def test_mirror_pairs():
    assert sorted(MIRROR) == list(range(84))
    np.testing.assert_array_equal(MIRROR[MIRROR], np.arange(84))
    np.testing.assert_array_equal(MIRROR[KEYPOINTS], KEYPOINTS[[1, 0, 2, 4, 3]])
    points = np.asarray(points_and_pose(Shot())[0])  # symmetric: no parting
    np.testing.assert_allclose(points[MIRROR] * [-1, 1], points, atol=1e-4)


def test_order_within_the_parts():
    x, y = np.asarray(points_and_pose(Shot(mouth_open=1.0))[0]).T
    for part in (range(17), range(17, 22), range(22, 27), range(68, 81)):
        assert (np.diff(x[list(part)]) > 0).all()
    assert y[8] == max(y)
    assert (np.diff(y[27:31]) > 0).all()
    assert x[36] < x[37] < x[38] < x[39] < x[42] < x[43] < x[44] < x[45]
    assert y[[37, 38]].max() < y[[40, 41]].min()
    assert x[48] < x[60] < x[64] < x[54]
    assert y[51] < y[62] < y[83] < y[66] < y[57]


def test_keypoints_are_landmarks_in_any_pose(render, ordinary):
    faces = render(PEOPLE, 3, ordinary)
    np.testing.assert_array_equal(faces.keypoints, faces.landmarks[:, KEYPOINTS])


def test_severity_0_is_aligned(render):
    points = render(np.arange(16), 0).keypoints * 112
    away = np.linalg.norm(points - ARCFACE_112, axis=-1)
    assert away.max() < 4
    assert np.abs(points.mean(0) - ARCFACE_112).max() < 1  # the mean face
    assert away.std(0).min() > 0.1  # people differ in what a similarity leaves
    # The average face fits as well as a symmetric one can: the template is not quite.
    average = points_and_pose(Shot())[1][KEYPOINTS]
    assert np.linalg.norm(average - ARCFACE_112, axis=-1).max() < 0.5


@pytest.mark.parametrize("yaw", [-0.44, 0.0, 0.44])
def test_to_face_inverts_to_frame(yaw):
    shot = Shot(yaw=yaw, pitch=0.2, rotation=0.3, scale=0.9, shift_x=0.05)
    points, _, back = points_and_pose(shot)
    off = np.linalg.norm(back - points, axis=-1)
    assert np.median(off) < 0.1
    assert np.delete(off, range(27, 36)).max() < 0.5  # the nose hides a part of itself
