"""Matchers: what they say of a match is what ranked it."""

import jax
import numpy as np
import pytest

from kprpe_jax.core.features import Features, take
from kprpe_jax.matching.earth_movers import match_faces
from kprpe_jax.matching.matchers import EarthMoversMatcher, PairMatcher
from kprpe_jax.matching.patch_encoder import PairEncoder, PatchWindows
from kprpe_jax.matching.sinkhorn import FAST
from kprpe_jax.matching.two_image import OneImage, SameOrNot, TwoLinear, score_pairs
from kprpe_jax.matching.two_stage import explain_two_stage, first_stage, two_stage

ENCODER = PairEncoder(
    1, 2, mlp_dim=4, width=6, num_patches=4, head_dim=3, dropout_rate=0.0
)
QUICK = FAST._replace(iterations=20)


def make(rng, count):
    return Features(
        rng.normal(size=(count, 5)).astype(np.float32),
        rng.uniform(size=(count, 4, 6)).astype(np.float32),
        keypoints=rng.uniform(size=(count, 5, 2)).astype(np.float32),
    )


@pytest.fixture
def sides(rng):
    return make(rng, 3), make(rng, 9)


def pair_matcher(model, rng):
    images = [np.zeros((1, 4, 6), np.float32)] * (
        1 if isinstance(model, OneImage) else 2
    )
    shapes = jax.eval_shape(model.init, jax.random.key(0), *images)
    draw = lambda s: rng.normal(0, 0.5, s.shape).astype(np.float32)  # noqa: E731
    return PairMatcher(model, jax.tree.map(draw, shapes))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["apc", "landmarks", "one", "h2", "h2l"])
def test_an_explanation_is_of_the_ranking(sides, rng, kind, monkeypatch):
    """Its ranking is that of `two_stage`, and nothing is solved a second time."""
    models = {"one": OneImage(ENCODER), "h2": SameOrNot(ENCODER)}
    models["h2l"] = TwoLinear(ENCODER, 5)
    if kind in models:
        matcher = pair_matcher(models[kind], rng)
    else:
        matcher = EarthMoversMatcher(kind, (2, 2), QUICK)
    options = dict(k=6, ranks=8, matcher=matcher)
    want = two_stage(*sides, **options)
    monkeypatch.delattr(type(matcher), "score")
    ranking, why = explain_two_stage(*sides, shown=3, **options)
    np.testing.assert_array_equal(ranking.rows, want.rows)
    np.testing.assert_allclose(ranking.scores, want.scores, atol=1e-6)
    np.testing.assert_allclose(why.scores, want.patch_similarity[:, :3], atol=1e-6)
    assert why.heat.shape == why.query_heat.shape == (3, 3, 4)
    assert (why.heat >= 0).all()
    if kind in models:
        assert why.flow is None
        return
    np.testing.assert_allclose(why.flow.sum(-1), why.query_heat, atol=1e-6)
    pair = take(sides[0], 1), take(sides[1], ranking.rows[1, 2])
    alone = match_faces(*pair, weighting=kind, grid=(2, 2), solver=QUICK)
    np.testing.assert_allclose(why.flow[1, 2], alone.flow, atol=1e-5)


@pytest.mark.slow
def test_scores_of_a_network(sides, rng):
    queries, gallery = sides
    matcher = pair_matcher(SameOrNot(ENCODER), rng)
    rows = first_stage(queries, gallery, ranks=4).rows
    got = matcher.score(queries, gallery, rows)
    for q, g in np.ndindex(3, 4):
        pair = queries.patches[q][None], gallery.patches[rows[q, g]][None]
        want = score_pairs(matcher.model, matcher.variables, *pair)
        np.testing.assert_allclose(got[q, g], want[0], atol=1e-5)


def test_errors(sides, rng):
    matcher = PairMatcher(SameOrNot(ENCODER), {})
    matcher.check_patches((2, 2), 6)
    with pytest.raises(ValueError, match="reads 4 patches of 6 .* with 42 of 512; ta"):
        matcher.check_patches((7, 6), 512)
    own = PairMatcher(OneImage(ENCODER.clone(windows=PatchWindows(4, 4))), {})
    with pytest.raises(ValueError, match="makes its own from images; take one"):
        own.check_patches((2, 2), 6)
    with pytest.raises(ValueError, match=r"shown must lie in \[1, k = 4\]; got 5"):
        explain_two_stage(*sides, shown=5, k=4)
