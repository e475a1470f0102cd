"""Streams of sets: what comes out depends on the images, not on how they arrive."""

import numpy as np
import pytest

from benchmarks.long_template import fuse_in_child
from kprpe_jax.core.features import Features, take
from kprpe_jax.fusion.cluster_aggregate import ImageSets
from kprpe_jax.fusion.scored import ScoredFusion
from kprpe_jax.fusion.stream import (
    BATCH_IMAGES,
    ImageRows,
    finalize,
    fuse_rows,
    merge_images,
)
from kprpe_jax.fusion.weighted import WeightedFusion
from tests.fusion.tiny import CHANNELS, D, draw_variables, tiny_model

COUNTS = (1, 300, 7, 1100, 2)  # images of the sets 0, 1, ...


@pytest.fixture
def rows(rng):
    sets = np.repeat(np.arange(len(COUNTS)), COUNTS)
    embeddings = rng.normal(size=(len(sets), D)) * rng.uniform(1, 9, (len(sets), 1))
    features = Features(
        np.float32(embeddings),
        style=np.float32(rng.normal(size=(len(sets), CHANNELS, 2))),
        keypoints=np.float32(rng.uniform(0.3, 0.7, (len(sets), 5, 2))),
    )
    return ImageRows(sets, features, np.float32(rng.uniform(size=len(sets))))


def split(rows, size):
    for start in range(0, len(rows.sets), size):
        part = slice(start, start + size)
        features = take(rows.features, part)
        yield ImageRows(rows.sets[part], features, rows.scores[part])


def fuse(model, variables, parts, **options):
    sets, embeddings = zip(*fuse_rows(model, variables, parts, **options), strict=True)
    np.testing.assert_array_equal(np.concatenate(sets), np.arange(len(COUNTS)))
    return np.concatenate(embeddings)


def test_any_parts_give_the_same(rows, monkeypatch):
    model = WeightedFusion(D, "norm_weighted")
    want = [
        rows.features.embeddings[rows.sets == n].mean(0) for n in range(len(COUNTS))
    ]
    # Windows smaller than a set, as of a long video.
    monkeypatch.setattr("kprpe_jax.fusion.stream._WINDOW", 64)
    for size in (37, 512, 5000):
        got = fuse(model, {}, split(rows, size), batch_images=16)
        np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.slow
def test_one_set_at_a_time_gives_the_same(rows):
    """`merge_images` in groups of BATCH_IMAGES, for a model whose groups matter."""
    model = tiny_model()
    variables = draw_variables(model, np.random.default_rng(1))
    own = np.flatnonzero(rows.sets == 1)  # a group of 256 and one of 44
    first = ImageRows(rows.sets[own], take(rows.features, own), rows.scores[own])
    ((_, got),) = fuse_rows(model, variables, split(first, 130))
    state = model.init_state(1)
    for start in range(0, len(own), BATCH_IMAGES):
        group = own[start : start + BATCH_IMAGES]
        features = take(rows.features, group)
        state = merge_images(model, variables, state, features, rows.scores[group])
    fused = finalize(model, variables, state).embeddings[0]
    np.testing.assert_allclose(got[0], fused, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["detection_score", "norm_detection_score"])
def test_scores_scale_embeddings(rows, method):
    model = ScoredFusion(D, method)
    x = rows.features.embeddings
    if method == "detection_score":
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    x = x * rows.scores[:, None]
    want = [x[rows.sets == n].mean(0) for n in range(len(COUNTS))]
    got = fuse(model, {}, split(rows, 400))
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_faults_are_one_sentence(rows):
    wrong = rows._replace(sets=rows.sets[::-1])
    with pytest.raises(ValueError, match="the images of a set must stand side by side"):
        list(fuse_rows(WeightedFusion(D), {}, [wrong]))
    with pytest.raises(ValueError, match="unknown method 'mean'; use one of"):
        ScoredFusion(D, "mean").apply({}, ImageSets(rows.features, rows.sets))
    without = rows.features._replace(keypoints=None)
    sets = ImageSets(take(without, np.arange(3)[None]), np.ones((1, 3), bool))
    with pytest.raises(ValueError, match="landmark_score weighs images by their key"):
        ScoredFusion(D).apply({}, sets)


@pytest.mark.slow
def test_memory_is_flat_over_a_long_template():
    """90,000 more frames take little of what their features would."""
    short, long = fuse_in_child(1_000), fuse_in_child(100_000)
    features = long["features_mib"]
    assert features > 480
    assert long["peak_mib"] - long["tenth_mib"] < 0.05 * features
    assert long["peak_mib"] - short["peak_mib"] < 0.2 * features
    assert long["state_mib"] < 0.1
