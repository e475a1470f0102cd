"""Suppression against the greedy loop."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.detection.nms import suppress_overlaps


def slow(boxes, scores, min_score, max_overlap, extra):
    """The textbook loop, with a division."""
    kept = []
    for index in np.argsort(-scores):
        if not scores[index] > min_score:
            continue
        for other in kept:
            low = np.maximum(boxes[index, :2], boxes[other, :2])
            high = np.minimum(boxes[index, 2:], boxes[other, 2:])
            shared = np.prod(np.maximum(high - low + extra, 0))
            areas = [
                np.prod(boxes[i, 2:] - boxes[i, :2] + extra) for i in (index, other)
            ]
            if shared / (sum(areas) - shared) > max_overlap:
                break
        else:
            kept.append(index)
    return kept


def run(boxes, scores, **options):
    return jax.jit(partial(suppress_overlaps, **options))(boxes, scores)


@pytest.mark.parametrize(("extra", "max_overlap"), [(0.0, 0.4), (1.0, 0.2)])
def test_equals_the_loop(rng, extra, max_overlap):
    corner = rng.uniform(0, 20, size=(3, 60, 2))
    size = rng.uniform(2, 12, size=(3, 60, 2))
    boxes = np.concatenate([corner, corner + size], axis=-1).astype(np.float32)
    scores = rng.uniform(size=(3, 60)).astype(np.float32)
    options = dict(min_score=0.2, max_overlap=max_overlap, extra=extra)
    keep = partial(suppress_overlaps, max_kept=40, **options)
    kept = jax.jit(jax.vmap(keep))(boxes, scores)
    for b in range(3):
        want = slow(boxes[b], scores[b], **options)
        assert 5 < len(want) < 40
        assert np.asarray(kept.index[b])[np.asarray(kept.mask[b])].tolist() == want


def test_fewer_places_than_boxes_and_more():
    boxes = jnp.array([[0.0, 0, 1, 1], [2, 2, 3, 3], [4, 4, 5, 5]])
    scores = jnp.array([0.5, 0.9, 0.7])
    kept = run(boxes, scores, max_kept=2)
    assert kept.index.tolist() == [1, 2]
    kept = run(boxes, scores, max_kept=5)
    assert kept.mask.tolist() == [True, True, True, False, False]
    kept = run(boxes, scores, max_kept=5, max_candidates=1)
    assert kept.mask.tolist() == [True, False, False, False, False]


def test_no_box_nan_scores_and_boxes_without_area():
    boxes = jnp.array([[0.0, 0, 1, 1], [2, 2, 2, 2], [2, 2, 2, 2]])
    assert not run(boxes, jnp.zeros(3), max_kept=2).mask.any()
    scores = jnp.array([jnp.nan, 0.9, 0.8])
    kept = run(boxes, scores, max_kept=3)
    assert kept.index[kept.mask].tolist() == [1, 2]
