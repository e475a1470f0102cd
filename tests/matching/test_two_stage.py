from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.core.features import Features, take
from kprpe_jax.matching.candidates import match_chunk
from kprpe_jax.matching.earth_movers import match_faces
from kprpe_jax.matching.matchers import EarthMoversMatcher
from kprpe_jax.matching.two_stage import (
    FAST,
    first_stage,
    rank_again,
    rank_by_patches,
    two_stage,
)
from tests.quick import quick_jit

QUICK = FAST._replace(iterations=20)
MATCHER = EarthMoversMatcher(solver=QUICK)
COUNT, SIZE = 5, 13


def make(rng, count, n):
    embeddings = rng.normal(size=(count, 6)).astype(np.float32)
    return Features(embeddings, rng.normal(size=(count, n, 6)).astype(np.float32))


@pytest.fixture
def queries(rng):
    return make(rng, COUNT, 4)


@pytest.fixture
def gallery(rng):
    """Another grid than the queries'."""
    rng.normal(size=1000)
    return make(rng, SIZE, 3)


def all_scores(queries, gallery):
    """Cosines and earth mover's similarities [Q, G] of all pairs."""
    units = [x.embeddings / np.linalg.norm(x.embeddings, axis=1, keepdims=True)
             for x in (queries, gallery)]  # fmt: skip
    pair = [
        Features(*(x[at] for x in faces[:2]))
        for faces, at in ((queries, np.s_[:, None]), (gallery, np.s_[None]))
    ]
    patches = quick_jit(partial(match_faces, solver=QUICK))(*pair).score  # fmt: skip
    return units[0] @ units[1].T, np.asarray(patches)


def slow_two_stage(cosine, patches, k, alpha, own=None):
    """One query: rows in order."""
    rows = sorted(range(len(cosine)), key=lambda g: -cosine[g])
    if own is not None:
        rows.remove(own)
    mixed = alpha * patches + (1 - alpha) * cosine
    return sorted(rows[:k], key=lambda g: -mixed[g]) + rows[k:]


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.0, 0.7, 1.0])
def test_against_sorted_lists(queries, gallery, alpha):
    cosine, patches = all_scores(queries, gallery)
    matcher = MATCHER._replace(chunk=2)
    got = two_stage(queries, gallery, k=6, alpha=alpha, matcher=matcher, ranks=SIZE)
    for q in range(COUNT):
        want = slow_two_stage(cosine[q], patches[q], 6, alpha)
        np.testing.assert_array_equal(got.rows[q], want)
    mixed = alpha * patches + (1 - alpha) * cosine
    want = np.take_along_axis(mixed, got.rows[:, :6], 1)
    np.testing.assert_allclose(got.scores[:, :6], want, atol=1e-5)
    np.testing.assert_allclose(
        got.cosine, np.take_along_axis(cosine, got.rows, 1), atol=1e-6
    )
    np.testing.assert_allclose(
        got.patch_similarity[:, :6],
        np.take_along_axis(patches, got.rows[:, :6], 1),
        atol=1e-5,
    )
    assert np.isnan(got.patch_similarity[:, 6:]).all()
    short = two_stage(queries, gallery, k=6, alpha=alpha, matcher=MATCHER)
    assert short.rows.shape == (COUNT, 6)


@pytest.mark.slow
def test_own_photo_is_not_found(gallery):
    """And where the gallery has no k others, the rest of the candidates is masked."""
    own = np.arange(SIZE)
    cosine, patches = all_scores(gallery, gallery)
    got = two_stage(gallery, gallery, k=SIZE, matcher=MATCHER, exclude_rows=own)
    for q in range(SIZE):
        want = slow_two_stage(cosine[q], patches[q], SIZE, 0.7, own=q)
        np.testing.assert_array_equal(got.rows[q], [*want, -1])
    assert np.isneginf(got.scores[:, -1]).all()
    assert np.isfinite(got.scores[:, :-1]).all()
    few = two_stage(gallery, gallery, k=4, matcher=MATCHER, exclude_rows=own)
    assert not (few.rows == own[:, None]).any()
    assert (few.rows >= 0).all()
    mixed = own.copy()
    mixed[::2] = -1
    some = two_stage(gallery, gallery, k=4, matcher=MATCHER, exclude_rows=mixed)
    assert (some.rows[::2, 0] == own[::2]).all()


def test_scores_are_the_same_in_every_chunk(queries, gallery):
    """One program, whatever the number of queries; device arrays or not."""
    rows = np.tile(np.arange(6), (COUNT, 1))
    score = MATCHER._replace(chunk=2).score
    together = score(queries, gallery, rows)
    compiled = match_chunk._cache_size()
    for q in range(COUNT):
        one = take(queries, slice(q, q + 1))
        alone = score(one, gallery, rows[q : q + 1])
        np.testing.assert_array_equal(alone[0], together[q])
    rows[:, 1:] = -1
    masked = score(queries, gallery, rows)
    np.testing.assert_array_equal(masked[:, 0], together[:, 0])
    assert np.isneginf(masked[:, 1:]).all()
    device = Features(*(jnp.asarray(x) for x in gallery[:2]))
    other = score(queries, device, rows)
    np.testing.assert_array_equal(other, masked)
    assert match_chunk._cache_size() == compiled
    assert score(queries, gallery, np.zeros((0, 6), int)).shape == (0, 6)


def test_by_patches_alone(queries, gallery):
    _, patches = all_scores(queries, gallery)
    options = dict(solver=QUICK, chunk=2, block=4)
    got = rank_by_patches(queries, gallery, ranks=SIZE, **options)
    order = np.argsort(-patches, axis=1, kind="stable")  # zeros are equal
    np.testing.assert_array_equal(got.rows, order)
    np.testing.assert_allclose(got.scores, -np.sort(-patches, 1), atol=1e-5)
    own = np.array([0, 1, -1, 3, 4])
    without = rank_by_patches(queries, gallery, ranks=SIZE, exclude_rows=own, **options)
    for q in range(COUNT):
        rest = [row for row in got.rows[q] if row != own[q]]
        np.testing.assert_array_equal(without.rows[q], rest + [-1] * int(own[q] >= 0))


def test_sum_in_place_of_a_mixture(queries, gallery):
    first = first_stage(queries, gallery, ranks=6)
    patches = MATCHER.score(queries, gallery, first.rows[:, :4])
    got = rank_again(first, patches, None)
    want = -np.sort(-(patches + first.scores[:, :4]), 1)
    np.testing.assert_allclose(got.scores[:, :4], want, atol=1e-6)
    np.testing.assert_array_equal(got.rows[:, 4:], first.rows[:, 4:])


def test_errors(queries, gallery):
    with pytest.raises(ValueError, match=r"alpha must lie in \[0, 1\]; got -1"):
        two_stage(queries, gallery, k=4, alpha=-1)
    with pytest.raises(ValueError, match="k 4, ranks 3 and a gallery of 13; set k"):
        two_stage(queries, gallery, k=4, ranks=3)
    with pytest.raises(ValueError, match="k 100, ranks 100 and a gallery of 13"):
        two_stage(queries, gallery)
    with pytest.raises(ValueError, match="k 14, ranks 14 and a gallery of 13"):
        two_stage(gallery, gallery, k=14, exclude_rows=np.arange(SIZE))
    with pytest.raises(ValueError, match="k 0, ranks 4 and a gallery of 13"):
        two_stage(queries, gallery, k=0, ranks=4)
    with pytest.raises(ValueError, match="first_stage: ranks .* gallery, 13; got 14"):
        first_stage(queries, gallery, ranks=14)
    with pytest.raises(ValueError, match="size of the gallery, 13; got 14"):
        rank_by_patches(queries, gallery, ranks=14)
    narrow = gallery._replace(embeddings=gallery.embeddings[:, :3])
    with pytest.raises(ValueError, match=r"equally wide; got \(5, 6\) and \(13, 3\)"):
        two_stage(queries, narrow, k=4)
    with pytest.raises(ValueError, match=r"rows must lie in \[0, 13\), .* 0 to 13"):
        MATCHER.score(queries, gallery, np.array([[0, 13]] * COUNT))


def test_images_that_cannot_be_compared(queries, gallery):
    faceless = queries._replace(embeddings=queries.embeddings.copy())
    faceless.embeddings[[1, 3]] = 0
    with pytest.raises(ValueError, match="zeros for query 1 and 1 more; leave these"):
        two_stage(faceless, gallery, k=4)
    broken = gallery._replace(patches=gallery.patches.copy())
    broken.patches[7, 1, 2] = np.nan
    with pytest.raises(ValueError, match="5 pairs, the first of query 0 and gallery r"):
        MATCHER.score(queries, broken, np.array([[1, 7, 2]] * COUNT))
    with pytest.raises(ValueError, match="finite score .* query 0 and gallery row 7;"):
        rank_by_patches(queries, broken, ranks=4, solver=QUICK, chunk=2)
    broken = gallery._replace(embeddings=gallery.embeddings.copy())
    broken.embeddings[7] = np.inf
    with pytest.raises(ValueError, match="ExactIndex: values must be finite; .* row 7"):
        two_stage(queries, broken, k=4)
