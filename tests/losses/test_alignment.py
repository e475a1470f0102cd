"""L_align against Eqs. 2-4 written out, and what it says about the weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.losses.alignment import PIXELS, alignment_loss


def oracle(warped, landmarks, weights):
    """Eqs. 3 and 4, term by term."""
    faces, count = warped.shape[:2]
    total = 0.0
    for i in range(faces):
        for s in range(count):
            difference = (warped[i, s] - landmarks[i, s]) * PIXELS
            total += weights[s] * np.sqrt((difference**2).sum())
    return total / (faces * count), sum((1 - a) ** 2 for a in weights)


def test_equals_the_equations(rng):
    warped, landmarks = rng.random((2, 3, 4, 2)).astype(np.float32)
    weights = rng.random(4).astype(np.float32)
    got = alignment_loss(warped, landmarks, weights)
    points, regularization = oracle(warped, landmarks, weights)
    np.testing.assert_allclose(got.landmarks, points, rtol=1e-5)
    np.testing.assert_allclose(got.regularization, regularization, rtol=1e-5)
    np.testing.assert_allclose(got.total, points + regularization, rtol=1e-5)
    distance = np.linalg.norm(warped - landmarks, axis=-1).mean() * 112
    np.testing.assert_allclose(got.distance, distance, rtol=1e-5)


def test_best_weights_are_those_of_the_docstring(rng):
    landmarks = np.zeros((2, 5, 2), np.float32)
    warped = landmarks + rng.random((5, 1)) / 10
    distance = np.linalg.norm(warped[0], axis=-1) * 112
    best = (1 - distance / 10).astype(np.float32)
    slope = jax.grad(lambda a: alignment_loss(warped, landmarks, a).total)(best)
    np.testing.assert_allclose(slope, 0, atol=1e-5)


def test_points_that_are_met_have_a_finite_gradient():
    points = jnp.full((2, 3, 2), 0.5)
    value, grads = jax.value_and_grad(
        lambda p: alignment_loss(p, points, jnp.ones(3)).total
    )(points)
    assert value == 0
    np.testing.assert_array_equal(grads, 0)


def test_bfloat16_points_are_measured_in_float32():
    points = jnp.full((1, 3, 2), 0.5, jnp.bfloat16)
    got = alignment_loss(points, points + jnp.bfloat16(0.125), jnp.ones(3))
    assert got.total.dtype == jnp.float32
    np.testing.assert_allclose(got.total, 112 * 0.125 * 2**0.5, rtol=1e-5)


def test_unknown_landmarks_teach_nothing(rng):
    """Value and gradients are those of the images whose landmarks are known."""
    warped, landmarks = rng.random((2, 4, 3, 2)).astype(np.float32)
    weights = rng.random(3).astype(np.float32)
    known = np.array([True, False, True, False])
    run = jax.jit(
        jax.value_and_grad(
            lambda w, a, *x: alignment_loss(w, x[0], a, *x[1:]).total, (0, 1)
        )
    )
    want, (points, slope) = run(warped[known], weights, landmarks[known])
    for rubbish in (0.0, np.nan):
        given = np.where(known[:, None, None], landmarks, np.float32(rubbish))
        moved = np.where(known[:, None, None], warped, np.float32(rubbish))
        value, grads = run(moved, weights, given, known)
        np.testing.assert_allclose(value, want, rtol=1e-6)
        np.testing.assert_allclose(grads[0][known], points, rtol=1e-5)
        np.testing.assert_array_equal(grads[0][~known], 0)
        np.testing.assert_allclose(grads[1], slope, rtol=1e-5)


def test_a_batch_without_any_landmarks_is_finite():
    nothing = jnp.full((2, 3, 2), jnp.nan)
    known = jnp.zeros(2, bool)
    value, grads = jax.value_and_grad(
        lambda a: alignment_loss(nothing, nothing, a, known).total
    )(jnp.full(3, 0.5))
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, 0.75)  # the regularization alone
    np.testing.assert_allclose(grads, -1)


def test_other_landmarks_are_refused():
    with pytest.raises(ValueError, match=r"got \(1, 3, 2\), \(1, 4, 2\) and \(3,\)"):
        alignment_loss(jnp.zeros((1, 3, 2)), jnp.zeros((1, 4, 2)), jnp.ones(3))


def test_landmarks_that_are_not_known_do_not_matter(rng):
    warped, landmarks = rng.random((2, 3, 4, 2)).astype(np.float32)
    weights = rng.random(4).astype(np.float32)
    known = np.array([[1, 1, 0, 1], [1, 0, 0, 1], [1, 1, 0, 0]], bool)
    distance = np.linalg.norm(warped - landmarks, axis=-1) * PIXELS
    columns = zip(distance.T, known.T, strict=True)
    mean = [d[k].mean() if k.any() else 0 for d, k in columns]
    got = alignment_loss(warped, landmarks, weights, known)
    np.testing.assert_allclose(got.landmarks, np.mean(weights * mean), rtol=1e-5)
    np.testing.assert_allclose(got.distance, np.mean(mean), rtol=1e-5)
    broken = np.where(known[..., None], landmarks, np.nan)
    slope = jax.grad(lambda x, y: alignment_loss(x, y, weights, known).total)
    np.testing.assert_array_equal(slope(warped, landmarks), slope(warped, broken))
    # All of an image or none: as one value an image.
    rows = np.array([True, False, True])
    for value, want in zip(
        alignment_loss(warped, landmarks, weights, np.tile(rows[:, None], (1, 4))),
        alignment_loss(warped, landmarks, weights, rows),
        strict=True,
    ):
        np.testing.assert_allclose(value, want, rtol=1e-6)
    with pytest.raises(ValueError, match=r"known must be \[B\] or \[B, S\].*\(3, 2\)"):
        alignment_loss(warped, landmarks, weights, known[:, :2])
