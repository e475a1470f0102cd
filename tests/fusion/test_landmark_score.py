import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.fusion.landmark_score import landmark_score, score_weighted

CANONICAL = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6]], np.float32)


@pytest.mark.parametrize("distance", ["whole", "per_point"])
def test_score_falls_with_the_distance(rng, distance):
    moved = (CANONICAL + rng.normal(0, 0.05, (6, 3, 2))).astype(np.float32)
    for points, got in zip(
        moved, landmark_score(moved, CANONICAL, distance=distance), strict=True
    ):
        each = [np.hypot(*(p - c)) for p, c in zip(points, CANONICAL, strict=True)]
        away = np.sqrt(np.sum(np.square(each)))
        if distance == "per_point":
            away = np.mean(each)
        assert got == pytest.approx((0.2 - min(away, 0.2)) / 0.2, abs=1e-6)


def test_ends_and_their_gradients():
    score = lambda x: landmark_score(x, CANONICAL).sum()  # noqa: E731
    assert score(jnp.asarray(CANONICAL)) == 1
    assert score(jnp.asarray(1 - CANONICAL)) == 0
    unknown = CANONICAL.copy()
    unknown[2] = np.nan
    for distance in ("whole", "per_point"):
        assert jnp.isnan(landmark_score(unknown, CANONICAL, distance=distance))
    for x in (CANONICAL, 1 - CANONICAL):
        for distance in ("whole", "per_point"):
            gradient = jax.grad(
                lambda x, d=distance: landmark_score(x, CANONICAL, distance=d)
            )(x)
            assert np.isfinite(gradient).all()


def test_norm_becomes_the_quality(rng):
    x = rng.normal(size=(4, 3)).astype(np.float32)
    x[3] = 0
    scores, faces = np.array([0.5, 1.0, 0.0, 1.0]), np.array([0.8, 1.0, 0.9, 1.0])
    got = score_weighted(x, scores, faces)
    np.testing.assert_allclose(
        np.linalg.norm(got, axis=1), [0.4, 1.0, 1e-6, 0.0], rtol=1e-5
    )
    assert not score_weighted(x, scores, faces, least=0.0)[2].any()


def test_unknown_distance():
    with pytest.raises(ValueError, match="unknown distance 'mean'"):
        landmark_score(CANONICAL, CANONICAL, distance="mean")
