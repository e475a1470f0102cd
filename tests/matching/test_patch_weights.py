import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.core.features import Features
from kprpe_jax.core.unit import unit
from kprpe_jax.matching.patch_weights import (
    WEIGHTINGS,
    landmark_density,
    pair_weights,
)

Q, G = 2, 3
GRIDS = (2, 2), (3, 2)


@pytest.fixture
def faces(rng):
    """Queries [Q, 1] and gallery [1, G] of grids with 4 and 6 patches."""

    def make(lead, n):
        return Features(
            jnp.asarray(rng.normal(size=(*lead, 5)), jnp.float32),
            jnp.asarray(rng.normal(size=(*lead, n, 5)), jnp.float32),
            keypoints=jnp.asarray(rng.uniform(size=(*lead, 5, 2)), jnp.float32),
        )

    return make((Q, 1), 4), make((1, G), 6)


def cosines(query, gallery):
    unit = [x.patches / jnp.linalg.norm(x.patches, axis=-1, keepdims=True)
            for x in (query, gallery)]  # fmt: skip
    return jnp.einsum("qonc,ogmc->qgnm", *unit)


def slow_weights(kind, patches, embedding, other, other_embedding):
    """One side of one pair, patch by patch."""
    weights = []
    for patch in patches:
        if kind == "uniform":
            weights.append(1.0)
        elif kind == "apc":
            weights.append(max(0.0, patch @ (sum(other) / len(other))))
        elif kind == "cc":
            weights.append(max(0.0, patch @ other_embedding))
        else:
            cosine = [patch @ x / np.sqrt((patch @ patch) * (x @ x)) for x in other]
            if kind == "sc_distance":
                cosine = [1 - x for x in cosine]
            weights.append(max(0.0, sum(cosine)))
    return np.array(weights) / max(sum(weights), 1e-30)


@pytest.mark.parametrize("kind", ["uniform", "apc", "cc", "sc", "sc_distance"])
def test_each_rule_patch_by_patch(faces, kind):
    query, gallery = faces
    a, b = pair_weights(kind, query, gallery, cosines(query, gallery))
    a, b = np.broadcast_to(a, (Q, G, 4)), np.broadcast_to(b, (Q, G, 6))
    for q, g in np.ndindex(Q, G):
        first = [np.float64(x[q, 0]) for x in (query.patches, query.embeddings)]
        second = [np.float64(x[0, g]) for x in (gallery.patches, gallery.embeddings)]
        want = slow_weights(kind, *first, *second)
        np.testing.assert_allclose(a[q, g], want, atol=1e-5)
        want = slow_weights(kind, *second, *first)
        np.testing.assert_allclose(b[q, g], want, atol=1e-5)


@pytest.mark.parametrize("kind", ["apc", "cc"])
def test_unit_patches_correlate_with_what_is_as_it_was(faces, kind):
    """The official variant: lengths of patches count in the other's center alone."""
    query, gallery = faces
    similarity = cosines(query, gallery)
    got = pair_weights(f"{kind}_unit", query, gallery, similarity)
    centers = [x.patches.mean(-2) if kind == "apc" else x.embeddings for x in faces]
    sides = [x._replace(patches=unit(x.patches), embeddings=center)
             for x, center in zip(faces, centers, strict=True)]  # fmt: skip
    for one, want in zip(got, pair_weights("cc", *sides, similarity), strict=True):
        np.testing.assert_allclose(one, want, atol=1e-6)
    plain = pair_weights(kind, query, gallery, similarity)
    assert not np.allclose(got[0], plain[0])


def test_densities_of_two_grids(faces):
    got = pair_weights("landmarks", *faces, cosines(*faces), grid=GRIDS)
    for one, side, grid in zip(got, faces, GRIDS, strict=True):
        np.testing.assert_array_equal(one, landmark_density(side.keypoints, grid))


def test_joint_weights_share_one_total(faces):
    query, gallery = faces
    a, b = pair_weights("apc_joint", query, gallery, cosines(query, gallery))
    np.testing.assert_allclose(a.sum(-1) + b.sum(-1), 1, rtol=1e-6)
    assert a.shape == (Q, G, 4)


def test_density_counts_the_keypoints_inside():
    keypoints = jnp.array([[[0.1, 0.1], [0.9, 0.1], [0.95, 0.45], [0.3, 0.99],
                            [1.0, 0.5], [-0.01, 0.5], [0.5, 1.2]]])  # fmt: skip
    density = landmark_density(keypoints, (2, 3))
    np.testing.assert_allclose(density[0], np.array([1, 0, 2, 1, 0, 0]) / 4)
    assert not landmark_density(keypoints - 3, (2, 3)).any()
    assert not jax.grad(lambda x: landmark_density(x, (2, 3))[0, 2])(keypoints).any()


@pytest.mark.slow
@pytest.mark.parametrize("kind", WEIGHTINGS)
def test_without_any_correlation_all_are_zero(faces, kind):
    """Opposite, and empty, images: zeros or uniform, with finite gradients."""
    query, gallery = faces
    query = query._replace(patches=jnp.ones_like(query.patches))
    gallery = gallery._replace(
        patches=-jnp.ones_like(gallery.patches).at[:, 0].set(0),
        embeddings=-jnp.ones_like(gallery.embeddings),
    )
    query = query._replace(embeddings=jnp.ones_like(query.embeddings))

    def total(patches):
        changed = query._replace(patches=patches)
        similarity = jnp.einsum("qonc,ogmc->qgnm", patches, gallery.patches) / 5
        a, b = pair_weights(kind, changed, gallery, similarity, grid=GRIDS)
        return (a**2).sum() + (b**2).sum(), (a, b)

    (_, (a, b)), gradient = jax.value_and_grad(total, has_aux=True)(query.patches)
    assert np.isfinite(gradient).all()
    assert np.isfinite(a).all()
    assert np.isfinite(b).all()
    if kind.removesuffix("_unit") in ("apc", "cc", "sc", "apc_joint"):
        assert not a[:, 1:].any()
        assert not b.any()


def test_errors(faces):
    query, gallery = faces
    similarity = cosines(query, gallery)
    with pytest.raises(ValueError, match="unknown weighting 'lmk'; use one of"):
        pair_weights("lmk", query, gallery, similarity)
    bare = gallery._replace(keypoints=None)
    for side, grid in ((bare, GRIDS), (gallery, None)):
        with pytest.raises(ValueError, match="needs the keypoints of both sides and"):
            pair_weights("landmarks", query, side, similarity, grid=grid)
    with pytest.raises(ValueError, match="grid 2 x 2 must hold all .*; got 6; correct"):
        pair_weights("landmarks", query, gallery, similarity, grid=(2, 2))
    short = gallery._replace(embeddings=gallery.embeddings[..., :3])
    with pytest.raises(ValueError, match="'cc' needs patches as wide .* got 5 and 3"):
        pair_weights("cc", query, short, similarity)
