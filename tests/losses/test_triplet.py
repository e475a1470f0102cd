"""Triplet losses and the cross entropy of parts against slow loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.losses.triplet import batch_all, batch_hard, part_cross_entropy

LABELS = np.array([0, 0, 1, 1, 1, 2, -1], np.int32)  # 2 has no positive
LOSSES = {"all": batch_all, "hard": batch_hard}


def slow_loss(kind, embeddings, labels, margin):
    """Every anchor, positive and negative in turn."""
    losses, active = [], []
    known = [n for n in range(len(labels)) if labels[n] >= 0]
    for part in range(embeddings.shape[1]):
        hinges = []
        for a in known:
            same = [p for p in known if labels[p] == labels[a] and p != a]
            other = [n for n in known if labels[n] != labels[a]]
            distance = np.linalg.norm(
                embeddings[:, part] - embeddings[a, part], axis=-1
            )
            if kind == "all":
                hinges += [
                    max(distance[p] - distance[n] + margin, 0)
                    for p in same
                    for n in other
                ]
            elif same and other:
                gap = distance[same].max() - distance[other].min()
                hinges.append(max(gap + margin, 0))
        hinges = np.array(hinges)
        violated = hinges[hinges > 0]
        counted = violated if kind == "all" else hinges
        losses.append(counted.mean() if counted.size else 0.0)
        active.append((hinges > 0).mean())
    return np.mean(losses), np.mean(active)


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("margin", [0.2, 2.0])
def test_equals_loops(kind, margin):
    embeddings = np.random.default_rng(0).normal(size=(7, 3, 4)).astype(np.float32)
    got = LOSSES[kind](jnp.asarray(embeddings), jnp.asarray(LABELS), margin=margin)
    np.testing.assert_allclose(
        got, slow_loss(kind, embeddings, LABELS, margin), rtol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize(
    "labels", [[0, 0, 0], [0, 1, 2], [-1, -1, -1], [0, 0, 1]], ids=str
)
def test_finite_where_points_coincide_or_triplets_lack(kind, labels):
    def total(embeddings):
        return LOSSES[kind](embeddings, jnp.array(labels)).loss

    loss, gradient = jax.value_and_grad(total)(jnp.ones((3, 2, 4)))
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(loss, 0.2 if labels == [0, 0, 1] else 0.0, rtol=1e-6)


@pytest.mark.parametrize("kind", LOSSES)
def test_one_part_and_bad_shapes(kind):
    embeddings = jax.random.normal(jax.random.key(0), (7, 4))
    flat = LOSSES[kind](embeddings, jnp.asarray(LABELS))
    parts = LOSSES[kind](embeddings[:, None], jnp.asarray(LABELS))
    assert flat.loss == parts.loss
    with pytest.raises(ValueError, match="one label per sequence"):
        LOSSES[kind](embeddings, jnp.zeros(3, jnp.int32))


def test_cross_entropy_equals_loops():
    logits = np.random.default_rng(1).uniform(-1, 1, (3, 2, 5)).astype(np.float32)
    labels = np.array([4, -1, 0], np.int32)
    want = []
    for n in (0, 2):
        for part in range(2):
            z = 16.0 * logits[n, part]
            want.append(np.log(np.exp(z).sum()) - z[labels[n]])
    got = part_cross_entropy(jnp.asarray(logits), jnp.asarray(labels))
    np.testing.assert_allclose(got, np.mean(want), rtol=1e-5)
    assert part_cross_entropy(jnp.asarray(logits), jnp.full(3, -1)) == 0.0
