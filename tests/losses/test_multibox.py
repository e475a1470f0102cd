"""Matching, mining and the loss against loops over faces and anchors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.detection.priors import (
    Anchors,
    decode_boxes,
    decode_keypoints,
    encode_boxes,
    encode_keypoints,
    make_priors,
)
from kprpe_jax.detection.retinaface import Heads
from kprpe_jax.losses.multibox import (
    Targets,
    box_overlaps,
    hard_negatives,
    match_anchors,
    multibox_loss,
)

PRIORS = make_priors((32, 32), Anchors(((10, 14), (20, 28), (30, 40))))
COUNT, POINTS = len(PRIORS), 3

loss_of = jax.jit(lambda heads, targets: multibox_loss(heads, targets, PRIORS))
match_of = jax.jit(lambda boxes, mask: match_anchors(boxes, mask, priors=PRIORS))


@pytest.fixture
def batch(rng):
    """Raw outputs for three images: two faces, one without points, and none."""
    low = rng.uniform(0, 0.5, (3, 2, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.3, 0.6, (3, 2, 2))], -1)
    keypoints = low[:, :, None] + rng.uniform(0, 0.4, (3, 2, POINTS, 2))
    mask = np.array([[True, True], [True, False], [False, False]])
    keypoint_mask = np.array([[True, False], [True, False], [False, False]])
    keypoints[~keypoint_mask] = np.nan
    sizes = dict(boxes=4, logits=2, keypoints=2 * POINTS)
    heads = Heads(
        **{k: np.float32(rng.normal(size=(3, COUNT, n))) for k, n in sizes.items()}
    )
    return heads, Targets(np.float32(boxes), np.float32(keypoints), mask, keypoint_mask)


def overlap_of(a, b):
    """Intersection over union of two boxes, by areas."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / (
        (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    )


def match_oracle(boxes, mask):
    """Which face each anchor is to find, or -1: written as the rule is told."""
    corners = [
        (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        for x, y, w, h in PRIORS.astype(float)
    ]
    table = [[overlap_of(box, c) for c in corners] for box in boxes]
    result = []
    for a in range(COUNT):
        best, face = max(
            ((table[f][a], f) for f in range(len(boxes)) if mask[f]), default=(0, -1)
        )
        result.append(face if best >= 0.35 else -1)
    for f in range(len(boxes)):
        if mask[f] and max(table[f]) >= 0.2:
            result[int(np.argmax(table[f]))] = f
    return result


def smooth(x):
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def loss_oracle(heads, targets):
    """All three parts, anchor by anchor."""
    positives = labeled = 0
    boxes = points = scores = 0.0
    for i in range(len(heads.logits)):
        match = match_oracle(targets.boxes[i].astype(float), targets.mask[i])
        logits = heads.logits[i].astype(float)
        entropy = [
            [np.log(np.exp(a - x) + np.exp(b - x)) for x in (a, b)] for a, b in logits
        ]
        background = []
        for a, face in enumerate(match):
            if face < 0:
                background.append(entropy[a][0])
                continue
            positives += 1
            scores += entropy[a][1]
            x, y, w, h = PRIORS[a].astype(float)
            left, top, right, bottom = targets.boxes[i, face].astype(float)
            want = [
                ((left + right) / 2 - x) / (0.1 * w),
                ((top + bottom) / 2 - y) / (0.1 * h),
                np.log((right - left) / w) / 0.2,
                np.log((bottom - top) / h) / 0.2,
            ]
            boxes += sum(map(smooth, heads.boxes[i, a] - want))
            if targets.keypoint_mask[i, face]:
                labeled += 1
                flat = (targets.keypoints[i, face] - [x, y]) / (0.1 * np.array([w, h]))
                points += sum(map(smooth, heads.keypoints[i, a] - flat.ravel()))
        mined = sorted(background, reverse=True)[: 7 * (COUNT - len(background))]
        scores += sum(mined)
    return boxes / positives, points / labeled, scores / positives


def test_the_loss_is_that_of_the_loops(batch):
    heads, targets = batch
    got = loss_of(heads, targets)
    boxes, points, scores = loss_oracle(heads, targets)
    np.testing.assert_allclose(got.boxes, boxes, rtol=1e-4)
    np.testing.assert_allclose(got.keypoints, points, rtol=1e-4)
    np.testing.assert_allclose(got.scores, scores, rtol=1e-4)
    np.testing.assert_allclose(got.total, 2 * boxes + points + scores, rtol=1e-4)


def test_unlabeled_points_reach_no_gradient(batch):
    heads, targets = batch
    grads = jax.jit(jax.grad(lambda h: multibox_loss(h, targets, PRIORS).total))(heads)
    assert all(np.isfinite(g).all() for g in grads)
    assert not any(np.abs(g[2]).max() for g in grads)  # the image without a face


def test_matching_is_that_of_the_rule(batch):
    _, targets = batch
    for boxes, mask in zip(targets.boxes, targets.mask, strict=True):
        index, positive = match_of(boxes, mask)
        got = np.where(positive, index, -1)
        np.testing.assert_array_equal(got, match_oracle(boxes.astype(float), mask))


def test_a_small_face_gets_its_best_anchor_and_a_tiny_one_none():
    for side, count in ((5, 1), (4, 0)):  # pixels, in the middle of one of 10
        box = (12 + np.float32([-1, -1, 1, 1]) * side / 2) / 32
        _, positive = match_of(np.stack([box, box]), np.array([True, False]))
        assert positive.sum() == count


def test_hard_negatives_are_the_most_face_like(rng):
    logits = rng.normal(size=(2, 40, 2)).astype(np.float32)
    positive = np.zeros((2, 40), bool)
    positive[0, [3, 9]] = True
    got = np.asarray(hard_negatives(logits, positive))
    assert got[0].sum() == 14
    assert not got[1].any()
    assert not (got & positive).any()
    margin = logits[0, :, 1] - logits[0, :, 0]
    left = ~got[0] & ~positive[0]
    assert margin[got[0]].min() > margin[left].max()
    positive[0] = np.arange(40) < 20  # fewer background anchors than wanted
    assert np.asarray(hard_negatives(logits, positive))[0].sum() == 20


def test_offsets_return(rng):
    low = rng.uniform(-0.2, 0.6, (COUNT, 2))
    boxes = np.float32(np.concatenate([low, low + rng.uniform(0.1, 0.6, low.shape)], 1))
    keypoints = rng.uniform(-0.5, 1.5, (COUNT, 5, 2)).astype(np.float32)
    back = decode_boxes(encode_boxes(boxes, PRIORS), PRIORS)
    np.testing.assert_allclose(back, boxes, atol=1e-6)
    back = decode_keypoints(encode_keypoints(keypoints, PRIORS), PRIORS)
    np.testing.assert_allclose(back, keypoints, atol=1e-6)
    flat = encode_boxes(np.zeros_like(boxes), PRIORS)  # a box without an area
    assert np.isfinite(flat).all()


def test_overlaps_without_area_are_zero():
    boxes = np.float32([[0.2, 0.2, 0.2, 0.4], [0, 0, 1, 1]])
    got = box_overlaps(boxes, np.float32([[0, 0, 1, 1], [2, 2, 3, 3]]))
    np.testing.assert_allclose(got, [[0, 0], [1, 0]])


def test_no_face_at_all_is_no_loss(batch):
    heads, targets = batch
    empty = targets._replace(mask=np.zeros_like(targets.mask))
    got = loss_of(heads, empty)
    np.testing.assert_array_equal(jnp.stack(got), 0)


def test_outputs_of_other_anchors_are_refused(batch):
    heads, targets = batch
    with pytest.raises(ValueError, match=f"of 10 anchors .*; got {COUNT} anchors"):
        multibox_loss(heads, targets, PRIORS[:10])
    with pytest.raises(ValueError, match=r"got \d+ anchors and keypoints of shapes"):
        multibox_loss(heads, targets._replace(mask=np.ones((3, 3), bool)), PRIORS)
