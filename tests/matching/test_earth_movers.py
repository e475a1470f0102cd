import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.core.features import Features
from kprpe_jax.matching.earth_movers import earth_movers, match_faces, patch_similarity
from kprpe_jax.matching.sinkhorn import Solver
from tests.quick import quick_jit

KERNEL = Solver(domain="kernel", unequal="query")


def make(rng, lead, n, channels=6):
    patches = rng.normal(size=(*lead, n, channels)).astype(np.float32)
    return Features(np.ones((*lead, channels), np.float32), patches)


def test_cosines_of_patches(rng):
    first, second = (make(rng, (2,), n).patches for n in (4, 3))
    got = patch_similarity(first, second)
    for b, i, j in np.ndindex(2, 4, 3):
        x, y = np.float64(first[b, i]), np.float64(second[b, j])
        want = x @ y / np.sqrt((x @ x) * (y @ y))
        np.testing.assert_allclose(got[b, i, j], want, atol=1e-6)
    low = patch_similarity(first.astype(jnp.bfloat16), second.astype(jnp.bfloat16))
    assert low.dtype == jnp.float32
    np.testing.assert_allclose(low, got, atol=2e-2)


@pytest.mark.slow
def test_moved_patches_are_found_again(rng):
    face = make(rng, (), 8).patches
    order = rng.permutation(8)
    even = np.full(8, 1 / 8, np.float32)
    match = earth_movers(face, face[order], even, even)
    assert float(match.score) > 0.99
    np.testing.assert_array_equal(match.flow.argmax(-1), np.argsort(order))
    assert float(match.error) < 1e-3
    other = earth_movers(face, make(rng, (), 8).patches, even, even)
    assert float(other.score) < float(match.score) - 0.2
    distance = (other.flow * (1 - patch_similarity(face, face))).sum()
    assert np.isfinite(distance)


@pytest.mark.slow
def test_score_is_the_moved_weight_less_the_distance(rng):
    query, gallery = (make(rng, (3,), n).patches for n in (5, 7))
    a, b = (rng.uniform(size=(3, n)).astype(np.float32) for n in (5, 7))
    match = earth_movers(query, gallery, a, b, KERNEL._replace(unequal="partial"))
    cost = (match.flow * (1 - patch_similarity(query, gallery))).sum((1, 2))
    np.testing.assert_allclose(match.score, match.flow.sum((1, 2)) - cost, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("weighting", ["apc", "sc"])
def test_all_pairs_at_once_as_each_alone(rng, weighting):
    """Up to the order of sums, which XLA chooses by the size of the batch."""
    query, gallery = make(rng, (2, 1), 6), make(rng, (1, 3), 4)
    compute = jax.jit(match_faces, static_argnames=("weighting", "solver"))
    options = dict(weighting=weighting, solver=KERNEL)
    together = compute(query, gallery, **options)
    assert together.flow.shape == (2, 3, 6, 4)
    for q, g in np.ndindex(2, 3):
        pair = [Features(*(x[at] for x in faces[:2]))
                for faces, at in ((query, (q, 0)), (gallery, (0, g)))]  # fmt: skip
        alone = compute(*pair, **options)
        np.testing.assert_allclose(alone.score, together.score[q, g], atol=2e-6)
        np.testing.assert_allclose(alone.flow, together.flow[q, g], atol=2e-6)


@pytest.mark.parametrize("gradient", ["implicit", "unrolled"])
def test_gradient_through_weights_and_flow(rng, gradient):
    query, gallery = (make(rng, (2,), n).patches for n in (5, 4))
    solver = KERNEL._replace(gradient=gradient)

    def score(patches):
        faces = Features(np.ones((2, 6), np.float32), patches)
        other = Features(np.ones((2, 6), np.float32), gallery)
        return match_faces(faces, other, solver=solver).score.sum()

    compute = quick_jit(jax.value_and_grad(score))
    direction = rng.normal(size=query.shape).astype(np.float32)
    step = 3e-3
    ahead, behind = (compute(query + s * step * direction)[0] for s in (1, -1))
    slope = (compute(query)[1] * direction).sum()
    np.testing.assert_allclose(slope, (ahead - behind) / (2 * step), rtol=2e-2)

    value, slopes = compute(jnp.zeros_like(query))  # no patch correlates with anything
    assert float(value) == 0
    assert np.isfinite(slopes).all()


def test_other_channels():
    with pytest.raises(ValueError, match="as many channels; got 6 and 5"):
        patch_similarity(jnp.ones((2, 3, 6)), jnp.ones((2, 3, 5)))
