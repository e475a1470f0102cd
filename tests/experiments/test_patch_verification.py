"""Pairs verified by patches and cosine, against one pair after the other."""

from functools import partial

import jax
import numpy as np
import pytest

from experiments.deepface_emd.patch_verification import (
    embed_all,
    table,
    verify_by_patches,
)
from experiments.deepface_emd.reranking_features import PhotoFeatures
from kprpe_jax.core.features import Features
from kprpe_jax.data.pair_sets import PairSet
from kprpe_jax.evaluation.verification import fold_accuracy
from kprpe_jax.matching.earth_movers import match_faces
from kprpe_jax.matching.sinkhorn import FAST
from tests.experiments.stand_in import StandIn
from tests.quick import quick_jit


class Rows:
    """Ten rows of 4 x 4 pixels, the last without keypoints."""

    def __len__(self):
        return 10

    def __getitems__(self, rows):
        return [
            {
                "image": np.full((4, 4, 3), 20 * row, np.uint8),
                "keypoints": np.full((5, 2), row / 10, np.float32),
                "has_keypoints": np.bool_(row < 9),
            }
            for row in rows
        ]


@pytest.mark.slow
def test_mix_of_both_scores(rng):
    labels = np.repeat(np.arange(10), 4)
    centers = rng.normal(size=(10, 6, 8))
    patches = centers[labels] + 0.8 * rng.normal(size=(40, 6, 8)) + 0.5
    embeddings = patches.mean(1) + 0.3 * rng.normal(size=(40, 8))
    arrays = (np.float32(x) for x in (embeddings, patches))
    features = PhotoFeatures(Features(*arrays), np.float32(patches.mean(1)), None)
    first, second = rng.integers(0, 40, (2, 70))
    second[:35] = first[:35] // 4 * 4 + (first[:35] + 1) % 4
    mixed = rng.permutation(70)
    first, second = first[mixed], second[mixed]
    same = labels[first] == labels[second]
    pairs = PairSet(None, first, second, same, 5)
    found = verify_by_patches(features, pairs, weightings=("apc",), block=16)["apc"]

    def take(rows):
        return jax.tree.map(lambda x: x[rows], features.faces)

    match = quick_jit(partial(match_faces, weighting="apc", solver=FAST))
    emd = np.array(
        [match(take(a), take(b)).score for a, b in zip(first, second, strict=True)]
    )
    unit = features.faces.embeddings
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    cosine = (unit[first] * unit[second]).sum(1)
    accuracies = set()
    for alpha in (0, 0.5, 1):
        mixed = alpha * emd + (1 - alpha) * cosine
        want = fold_accuracy(1 - mixed, same, num_folds=5, thresholds="exact")
        got = found[f"{alpha:g}"]["accuracy"]
        np.testing.assert_allclose(got, want.mean, atol=1.5 / 70)  # a tie may turn
        accuracies.add(got)
    assert len(accuracies) > 1
    assert f"| APC | {100 * found['0']['accuracy']:.2f} / " in table({"apc": found})


def test_features_of_all_rows():
    """The last batch is filled; a row without keypoints is told."""

    def embed(images, keypoints):
        mean = images.mean((1, 2))
        return Features(mean, mean[:, None], keypoints=keypoints)

    features, known = embed_all(Rows(), StandIn("mean", embed), batch_size=4)
    np.testing.assert_allclose(
        features.pooled[:, 0], np.arange(10) * 20 / 127.5 - 1, atol=1e-6
    )
    assert features.faces.patches.shape == (10, 1, 3)
    assert not known
