"""Losses of set fusion against sums in float64, and at the edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.losses.set_fusion import (
    class_means,
    cosine_distance,
    permutation_loss,
    template_loss,
)


def cosine(x, y):
    x, y = np.float64(x), np.float64(y)
    return x @ y / np.linalg.norm(x) / np.linalg.norm(y)


def test_losses_are_means_of_one_minus_cosine(rng):
    one, other = rng.normal(size=(2, 4, 6)).astype(np.float32)
    want = np.mean([1 - cosine(x, y) for x, y in zip(one, other, strict=True)])
    np.testing.assert_allclose(template_loss(one, other), want, atol=1e-4)
    np.testing.assert_allclose(permutation_loss(one, other), want, atol=1e-4)
    scaled = permutation_loss(1e4 * one, 1e3 * other)
    np.testing.assert_allclose(scaled, want, atol=1e-6)


def test_only_the_permutation_loss_moves_both_sides(rng):
    one, other = rng.normal(size=(2, 4, 6)).astype(np.float32)
    assert (np.asarray(jax.grad(template_loss, 1)(one, other)) == 0).all()
    assert (np.asarray(jax.grad(template_loss, 0)(one, other)) != 0).all()
    for argument in (0, 1):
        gradient = jax.grad(permutation_loss, argument)(one, other)
        assert (np.asarray(gradient) != 0).all()


def test_zero_and_equal_vectors_are_finite():
    zero, some = jnp.zeros((2, 3)), jnp.ones((2, 3))
    np.testing.assert_allclose(cosine_distance(zero, some), 1.0)
    np.testing.assert_allclose(cosine_distance(some, some), 0.0, atol=2e-5)
    for x in (zero, some):
        value, gradient = jax.value_and_grad(permutation_loss)(x, some)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def test_a_center_for_each_set():
    with pytest.raises(ValueError, match="a class center, or a partner, for each set"):
        template_loss(jnp.zeros((2, 3)), jnp.zeros((1, 3)))


def test_class_means(rng):
    embeddings = rng.normal(size=(6, 4)) * np.array([[1], [100], [1], [1], [1], [1]])
    labels = np.array([0, 0, 2, 2, -1, 5])
    got = class_means(embeddings.astype(np.float32), labels, num_classes=4)
    units = embeddings / np.linalg.norm(embeddings, axis=-1, keepdims=True)
    for label in (0, 2):  # a longer embedding counts no more
        mean = units[labels == label].mean(0)
        np.testing.assert_allclose(got[label], mean / np.linalg.norm(mean), atol=1e-4)
    assert (np.asarray(got)[[1, 3]] == 0).all()
