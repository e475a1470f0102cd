import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.matching.patch_weights import (
    WEIGHTINGS,
    Faces,
    landmark_density,
    pair_weights,
)

Q, G = 2, 3


@pytest.fixture
def faces(rng):
    """Queries [Q, 1] and gallery [1, G] of grids with 4 and 6 patches."""

    def make(lead, n):
        density = rng.uniform(size=(*lead, n))
        return Faces(
            jnp.asarray(rng.normal(size=(*lead, 5)), jnp.float32),
            jnp.asarray(rng.normal(size=(*lead, n, 5)), jnp.float32),
            densities=jnp.asarray(density / density.sum(-1, keepdims=True)),
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


def test_given_centers_take_the_place_of_means(faces):
    query, gallery = faces
    similarity = cosines(query, gallery)
    centers = [x._replace(centers=5 * x.patches.mean(-2)) for x in faces]
    for got, want in zip(
        pair_weights("apc", *centers, similarity),
        pair_weights("apc", query, gallery, similarity),
        strict=True,
    ):
        np.testing.assert_allclose(got, want, atol=1e-6)
    other = query._replace(centers=-query.patches.mean(-2))
    changed = pair_weights("apc", other, gallery, similarity)
    plain = pair_weights("apc", query, gallery, similarity)
    assert (changed[0] == plain[0]).all()  # one's own center is for the other side
    assert not np.allclose(changed[1], plain[1])


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
        a, b = pair_weights(kind, changed, gallery, similarity)
        return (a**2).sum() + (b**2).sum(), (a, b)

    (_, (a, b)), gradient = jax.value_and_grad(total, has_aux=True)(query.patches)
    assert np.isfinite(gradient).all()
    assert np.isfinite(a).all()
    assert np.isfinite(b).all()
    if kind in ("apc", "cc", "sc", "apc_joint"):
        assert not a[:, 1:].any()
        assert not b.any()


def test_errors(faces):
    query, gallery = faces
    similarity = cosines(query, gallery)
    with pytest.raises(ValueError, match="unknown weighting 'lmk'; use one of"):
        pair_weights("lmk", query, gallery, similarity)
    bare = gallery._replace(densities=None)
    with pytest.raises(ValueError, match="needs densities on both sides"):
        pair_weights("landmarks", query, bare, similarity)
    short = gallery._replace(embeddings=gallery.embeddings[..., :3])
    with pytest.raises(ValueError, match="'cc' needs patches as wide .* got 5 and 3"):
        pair_weights("cc", query, short, similarity)
