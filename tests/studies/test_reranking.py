"""What the study counts, on galleries small enough to count by hand."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.matching.earth_movers import match_faces
from kprpe_jax.matching.patch_weights import Faces, landmark_density
from kprpe_jax.matching.two_stage import FAST, first_stage
from kprpe_jax.report import reranking as report
from kprpe_jax.studies import reranking
from kprpe_jax.studies.reranking_scores import WEIGHTINGS, Features, pair_scores
from tests.quick import quick_jit

PEOPLE, EACH = 6, 4


@pytest.fixture
def trial(rng):
    """People whose photos are near each other; queries are the photos, changed."""
    labels = np.repeat(np.arange(PEOPLE), EACH)
    centers = rng.normal(size=(PEOPLE, 5))
    gallery = (centers[labels] + 0.5 * rng.normal(size=(24, 5))).astype(np.float32)
    rows = rng.permutation(24)[:10]
    queries = gallery[rows] + 0.5 * rng.normal(size=(10, 5)).astype(np.float32)
    first = first_stage(Faces(queries, None), Faces(gallery, None), ranks=24)
    scores = rng.normal(size=(10, 9, len(WEIGHTINGS))).astype(np.float32)
    return reranking.Trial(rows, labels[rows], labels, first, scores)


def by_hand(trial, scores, alpha, k, own):
    """P@1, R-precision and MAP@R with the own photo removed or kept, one by one."""
    figures = []
    for q, (rows, cosines) in enumerate(zip(*trial.first, strict=True)):
        pairs = [
            (row, alpha * score + (1 - alpha) * cosine)
            for row, cosine, score in zip(rows, cosines, scores[q], strict=False)
            if own or row != trial.rows[q]
        ][:k]
        ranked = [row for row, _ in sorted(pairs, key=lambda pair: -pair[1])]
        ranked += [r for r in rows if r not in ranked and (own or r != trial.rows[q])]
        hits = trial.gallery_labels[ranked] == trial.labels[q]
        relevant = EACH if own else EACH - 1
        precision = [hits[: i + 1].mean() for i in range(relevant) if hits[i]]
        figures.append((hits[0], hits[:relevant].mean(), np.sum(precision) / relevant))
    return 100 * np.mean(figures, 0)


def test_own_photos_both_ways(trial, monkeypatch):
    monkeypatch.setattr(reranking, "K", 8)
    removed = reranking.count_all(trial, own="removed")
    kept = reranking.count_all(trial, own="kept")
    counted = reranking.count_all(trial, own="counted")
    for i, name in enumerate(WEIGHTINGS):
        for alpha in (0.3, 0.7, 1.0):
            scores = trial.scores[:, :, i]
            got = [[*x[name][f"{alpha:g}"].values()] for x in (removed, kept)]
            want = [by_hand(trial, scores, alpha, 8, own) for own in (False, True)]
            np.testing.assert_allclose(got, want)
        assert removed[name]["0"] == removed["stage1"]
    # The thesis' R is one more than can be found.
    assert counted["stage1"]["p_at_1"] == removed["stage1"]["p_at_1"]
    assert counted["stage1"]["rp"] <= 100 * (EACH - 1) / EACH
    for modes in (removed, kept):
        best = max(modes[name]["1"]["map_at_r"] for name in WEIGHTINGS)
        assert modes["perfect"]["map_at_r"] >= best


@pytest.mark.slow
def test_several_weightings_at_once(rng):
    """As `match_faces` one by one; CC takes the pooled vector for the embedding."""

    def draw(*lead):
        patches = rng.normal(size=(*lead, 6, 8)) + 0.5
        points = rng.random((*lead, 5, 2))
        arrays = rng.normal(size=(*lead, 4)), patches
        arrays = [jnp.asarray(x, jnp.float32) for x in arrays]
        faces = Faces(*arrays, densities=landmark_density(points, (3, 2)))
        return Features(faces, jnp.asarray(rng.normal(size=(*lead, 8)), jnp.float32))

    query, gallery = draw(2), draw(2, 3)
    got = pair_scores(query, gallery, WEIGHTINGS)
    for i, name in enumerate(WEIGHTINGS):
        sides = []
        for side in (query, gallery):
            faces = side.faces
            sides.append(faces._replace(embeddings=side.pooled))
        one = Faces(*(None if x is None else x[:, None] for x in sides[0]))
        match = quick_jit(partial(match_faces, weighting=name, solver=FAST))
        want = match(one, sides[1]).score
        np.testing.assert_allclose(got[:, :, i], want, atol=1e-5, err_msg=name)


def test_report(trial, tmp_path, monkeypatch):
    monkeypatch.setattr(reranking, "K", 8)
    modes = {own: reranking.count_all(trial, own=own) for own in ("removed", "kept")}
    results = {
        "photos": 24,
        "people": PEOPLE,
        "queries": {"crop": {"count": 10, **modes}},
        "depth": {"crop": {"8": modes["removed"]["stage1"]}},
        "packing": {},
        "alone": {},
    }
    text = report.write(results, tmp_path)
    figure = modes["removed"]["apc"]["0.7"]["p_at_1"]
    assert f"| APC, α = 0.7 | {figure:.2f} |" in text
    assert "10 queries, crop; own photo in the gallery" in text
    assert (tmp_path / "tables.md").read_text() == text
    assert (tmp_path / "reranking_alpha.png").stat().st_size > 1000
