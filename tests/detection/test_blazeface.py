"""BlazeFace and FaceMesh with random weights: shapes, geometry, merging."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.detection.blaze_detector import _look_closer, decode_blazeface
from kprpe_jax.detection.blazeface import (
    BlazeFaceFull,
    BlazeFaceShort,
    BlazeOutput,
    BlazeUnit,
)
from kprpe_jax.detection.face_mesh import (
    FIVE_POINTS,
    FaceMesh,
    MeshOutput,
    crop_matrix,
    five_points,
    head_pose,
)
from kprpe_jax.detection.nms import merge_overlaps
from kprpe_jax.geometry import affine
from tests.quick import quick_jit


@pytest.mark.parametrize(
    ("model", "side", "anchors"),
    [
        (BlazeFaceShort(), 128, 896),
        (BlazeFaceFull(), 192, 2304),
        (BlazeFaceFull(), 384, 4 * 2304),
    ],
)
def test_shapes(model, side, anchors):
    images = jnp.zeros((2, side, side, 3))
    found, _ = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x), images
    )
    assert found.offsets.shape == (2, anchors, 16)
    assert found.logits.shape == (2, anchors)
    assert found.logits.dtype == jnp.float32


def test_shapes_of_the_mesh():
    images = jnp.zeros((2, 192, 192, 3))
    found, _ = jax.eval_shape(
        lambda x: FaceMesh(dtype=jnp.bfloat16).init_with_output(jax.random.key(0), x),
        images,
    )
    assert (found.points.shape, found.logits.shape) == ((2, 468, 3), (2,))
    assert found.points.dtype == found.logits.dtype == jnp.float32


@pytest.mark.parametrize("learned", [False, True])
def test_a_unit_that_halves_the_map(rng, learned):
    """Against sums written out: zeros after the last pixel, none before the first."""
    x = rng.normal(size=(1, 4, 6, 2)).astype(np.float32)
    unit = BlazeUnit((3,), 2, learned)
    shapes = jax.eval_shape(unit.init, jax.random.key(0), x)
    variables = jax.tree.map(
        lambda s: rng.normal(size=s.shape).astype(np.float32), shapes
    )
    p = variables["params"]
    padded = np.pad(x[0], [(0, 1), (0, 1), (0, 0)])
    want = np.zeros((2, 3, 3))
    for r in range(2):
        for c in range(3):
            window = padded[2 * r : 2 * r + 3, 2 * c : 2 * c + 3]
            depth = (window * p["depthwise0"]["kernel"][:, :, 0]).sum((0, 1))
            depth = depth + p["depthwise0"]["bias"]
            y = depth @ p["pointwise0"]["kernel"][0, 0] + p["pointwise0"]["bias"]
            largest = x[0, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2].max((0, 1))
            want[r, c] = y + np.pad(largest, (0, 1))
    slope = p["act"]["slope"] if learned else 0
    want = np.where(want >= 0, want, want * slope)
    np.testing.assert_allclose(quick_jit(unit.apply)(variables, x)[0], want, atol=1e-5)


def test_decoding():
    offsets = np.zeros((1, 5, 16), np.float32)
    offsets[0, 1, :6] = 10, -10, 20, 40, 5, 0
    output = BlazeOutput(offsets, np.zeros((1, 5), np.float32))
    boxes, keypoints, scores = decode_blazeface(output, [(2, 1), (1, 1)], 100)
    np.testing.assert_allclose(boxes[0, 1], [0.75, -0.05, 0.95, 0.35], atol=1e-6)
    np.testing.assert_allclose(keypoints[0, 1, 0], [0.8, 0.25], atol=1e-6)
    np.testing.assert_allclose(keypoints[0, 4, 5], [0.5, 0.5])
    assert np.asarray(scores == 0.5).all()


def test_boxes_that_overlap_become_their_mean(rng):
    """Against loops, as the source describes it."""
    low = rng.uniform(0, 1, (60, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.1, 0.6, (60, 2))], 1)
    keypoints, scores = rng.normal(size=(60, 2, 2)), rng.uniform(0, 1, 60)
    scores[7], boxes[9] = np.nan, [0.5, 0.5, 0.4, 0.6]
    left = [i for i in np.argsort(-scores) if scores[i] > 0.3 and i != 9]
    want = []
    while left:
        best, near, far = left[0], [], []
        for i in left:
            sides = np.minimum(boxes[i, 2:], boxes[best, 2:])
            shared = np.prod(np.maximum(sides - np.maximum(low[i], low[best]), 0))
            area = sum(np.prod(boxes[k, 2:] - boxes[k, :2]) for k in (i, best))
            (near if shared / (area - shared) > 0.3 else far).append(i)
        weights = scores[near] / scores[near].sum()
        want.append((weights @ boxes[near], scores[best], weights @ keypoints[near, 0]))
        left = far
    found = quick_jit(lambda *x: merge_overlaps(*x, max_kept=40, min_score=0.3))(
        *(x.astype(np.float32) for x in (boxes, keypoints, scores))
    )
    count = len(want)
    assert found.mask.sum() == count
    assert found.mask[:count].all()
    np.testing.assert_allclose(found.boxes[:count], [x[0] for x in want], atol=1e-5)
    np.testing.assert_allclose(found.scores[:count], [x[1] for x in want], atol=1e-6)
    np.testing.assert_allclose(
        found.keypoints[:count, 0], [x[2] for x in want], atol=1e-5
    )
    assert (np.asarray(found.boxes[count:]) == 0).all()


def test_crops_are_level_and_around_the_box():
    boxes = np.float32([[10, 20, 30, 60], [0, 0, 0, 0]])
    eyes = np.float32([[[20, 30], [20, 40]], [[5, 5], [5, 5]]])  # a face that lies
    matrix = crop_matrix(boxes, eyes, (192, 192))
    center = affine.apply(matrix, np.full((2, 1, 2), 96, np.float32))
    np.testing.assert_allclose(center[:, 0], [[20, 40], [0, 0]], atol=1e-4)
    corner = affine.apply(matrix[:1], np.zeros((1, 1, 2), np.float32))[0, 0]
    np.testing.assert_allclose(corner, [20 + 30, 40 - 30], atol=1e-4)
    assert np.isfinite(matrix).all()


def test_each_face_is_looked_at_in_its_place():
    """A stand-in for FaceMesh whose points are those of the crop's brightest color."""
    images = np.full((2, 64, 64, 3), -1, np.float32)
    spots = [[(10, 12)], [(40, 20), (15, 50), (30, 30)]]
    for image, places in zip(images, spots, strict=True):
        for x, y in places:
            image[y - 1 : y + 1, x - 1 : x + 1] = 1  # around the pixel edge (x, y)
    looks = []

    def look(crops):
        looks.append(crops.shape)
        light = crops[..., 0] + 1
        ticks = jnp.arange(32) + 0.5
        total = light.sum((1, 2))[:, None]
        x, y = ((light.sum(axis) * ticks).sum(1, keepdims=True) for axis in (1, 2))
        point = jnp.concatenate([x / total, y / total, total * 0], -1)
        return MeshOutput(jnp.repeat(point[:, None], 468, 1), total[:, 0])

    mask = np.array([[True, False, False, False], [True, True, True, False]])
    boxes = np.zeros((2, 4, 4), np.float32)
    eyes = np.zeros((2, 4, 2, 2), np.float32)
    for row, places in enumerate(spots):
        for number, (x, y) in enumerate(places):
            boxes[row, number] = x - 6, y - 5, x + 5, y + 6
            eyes[row, number] = (x - 2, y), (x + 2, y + 1)
    found = _look_closer(look, images, boxes, eyes, mask, (32, 32))
    assert looks == [(2, 32, 32, 3)]  # traced once, whatever the number of faces
    for row, places in enumerate(spots):
        got = found.points[row, : len(places), 0, :2]
        np.testing.assert_allclose(got, places, atol=0.1)
    assert (np.asarray(found.points[:, 3]) == 0).all()


def test_pose():
    """A face that is turned by known angles."""
    rng = np.random.default_rng(0)
    mesh = rng.normal(size=(468, 3))
    mesh[[234, 454, 10, 152]] = [-1, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0]
    np.testing.assert_allclose(head_pose(mesh), [0, 0, 0], atol=1e-4)

    def turned(axis, degrees):
        """The mesh, and where it looks."""
        angle = np.radians(degrees)
        one, other = (i for i in range(3) if i != axis)
        turn = np.eye(3)
        turn[one, one] = turn[other, other] = np.cos(angle)
        turn[one, other], turn[other, one] = -np.sin(angle), np.sin(angle)
        return mesh @ turn.T, turn @ [0, 0, -1]

    np.testing.assert_allclose(head_pose(turned(2, 30)[0]), [0, 0, 30], atol=1e-4)
    for degrees in (25, -15):
        face, (right, _, _) = turned(1, degrees)
        want = [np.sign(right) * abs(degrees), 0, 0]
        np.testing.assert_allclose(head_pose(face), want, atol=1e-4)
        face, (_, down, _) = turned(0, degrees)
        want = [0, -np.sign(down) * abs(degrees), 0]
        np.testing.assert_allclose(head_pose(face), want, atol=1e-4)


def test_five_points_are_of_the_mesh():
    assert [max(x) < 468 for x in FIVE_POINTS] == [True] * 5
    mesh = np.arange(468 * 2, dtype=np.float32).reshape(1, 468, 2)
    np.testing.assert_array_equal(five_points(mesh)[0, 3], mesh[0, 61])
