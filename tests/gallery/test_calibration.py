"""The threshold at which few strangers are named, against simulated strangers."""

import numpy as np
import pytest

from kprpe_jax.core.features import Features
from kprpe_jax.gallery import thresholds
from kprpe_jax.gallery.calibration import calibrate
from kprpe_jax.gallery.header import GalleryContents

DIM = 24


def make(people, *, photos=1, seed=0, noise=0.0, common=0.0):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(people, 1, DIM)) + common
    rows = centers + noise * rng.normal(size=(people, photos, DIM))
    rows = rows.reshape(-1, DIM).astype(np.float32)
    names = [f"p{i}" for i in range(people) for _ in range(photos)]
    counts = np.ones(len(rows), int)
    return GalleryContents(names, names, counts, Features(3 * rows), {})


def share_named(contents, threshold, count=4000):
    x = contents.features.embeddings
    strangers = np.random.default_rng(99).normal(size=(count, DIM))
    x, strangers = (
        v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, strangers)
    )
    return ((strangers @ x.T).max(1) >= threshold).mean()


@pytest.mark.parametrize("far", [0.02, 0.1])
@pytest.mark.parametrize("people", [20, 60, 600])
def test_so_many_strangers_are_named(people, far):
    """The mean over galleries; one gallery of few people tells less.

    Random directions have lighter tails than faces: what extrapolates names fewer.
    """
    shares = []
    for seed in range(12):
        contents = make(people, seed=seed)
        found = calibrate(contents, far)
        assert (found.far, found.named) == (far, None)
        shares.append(share_named(contents, found.threshold))
    assert np.mean(shares) < 1.5 * far
    if people >= 500:
        assert np.mean(shares) > far / 2


def test_photos_of_one_person_are_no_impostors():
    one, three = make(40, noise=0.1), make(40, photos=3, noise=0.1)
    single, several = calibrate(one), calibrate(three)
    assert several.threshold == pytest.approx(single.threshold, abs=0.12)
    assert several.named == 1
    assert "40 people" in several.source


def test_few_people_take_the_published_threshold():
    measured = thresholds.MeasuredThreshold(0.4, 0.001, 0.9, "pairs of faces", "")
    found = calibrate(make(3), 0.02, measured)
    assert found.threshold == 0.4
    assert found.far == pytest.approx(1 - 0.999**3)
    assert found.source == "pairs of faces, as the gallery has 3 people"
    stricter = calibrate(make(3), 0.001, measured)  # it names too many
    assert stricter.threshold is None or stricter.threshold > 0.4
    assert calibrate(make(1), 0.0001, measured).far == pytest.approx(0.001)
    assert calibrate(make(40), 0.02, measured).threshold != 0.4


def test_nothing_is_known_of_one_person():
    found = calibrate(make(1, photos=2))
    assert found[:2] == (None, None)
    assert found.source == "1 person and no published threshold"


def test_weights_that_separate_nobody_set_no_threshold():
    found = calibrate(make(30, photos=2, noise=5))
    assert found.threshold is found.far is None
    assert found.named < 0.5


def test_all_entries_alike():
    alike = make(30)
    alike.features.embeddings[:] = 1
    found = calibrate(alike)
    assert found.threshold is None or np.isfinite(found.threshold)


@pytest.mark.parametrize("far", [0, 1, -1, float("nan")])
def test_a_share_out_of_its_range(far):
    with pytest.raises(ValueError, match="--far must lie between 0 and 1; got"):
        calibrate(make(3), far)
