"""Bias inside windows: offsets, frames of keypoints, the factorized form."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.layers.windows import plan_windows, token_places
from kprpe_jax.position.buckets import compute_buckets
from kprpe_jax.position.window_bias import (
    MESHES,
    WindowKeypointBias,
    fill_missing,
    log_offsets,
    offset_buckets,
    query_frame,
)
from tests.quick import quick_jit

GRID, WINDOW = (6, 8), (3, 4)
LAYERS, HEADS, KEYPOINTS = 2, 2, 3


def places(shifted):
    return token_places(plan_windows(GRID, WINDOW, shifted=shifted, cut=True))


@pytest.mark.parametrize("window", [(2, 3), (3, 3), (1, 2)])
def test_offsets_keep_their_bucket_in_a_cut_window(window):
    whole = offset_buckets((3, 3), (3, 3))
    part = offset_buckets(window, (3, 3))
    assert part.num_buckets == whole.num_buckets == 25
    tokens = list(np.ndindex(window))
    for (i, query), (j, key) in product(enumerate(tokens), repeat=2):
        row, column = query[0] - key[0] + 2, query[1] - key[1] + 2
        assert part.ids[i, j] == 5 * row + column


def test_logarithmic_offsets():
    got = log_offsets((3, 1))
    want = [[-np.log2(9) / 3, 0], [-np.log2(5) / 3, 0], [0, 0]]
    np.testing.assert_allclose(got[:3], want, atol=1e-6)
    np.testing.assert_allclose(got[::-1], -got, atol=1e-6)


@pytest.mark.parametrize("shifted", [False, True])
def test_frames(shifted):
    """A keypoint in the middle of a token is at distance 0 from it, rolled or not."""
    place, extent = places(shifted), (6.5, 8.25)  # the map ends before the image
    keypoint = (place + 0.5)[..., ::-1] / extent[::-1]  # fractions of the image
    centers, unit = query_frame(place, GRID, WINDOW, extent, "window")
    np.testing.assert_allclose(keypoint * unit, centers, rtol=1e-6)
    one_window = np.array(WINDOW[::-1]) / extent[::-1]  # in fractions of the image
    np.testing.assert_allclose(one_window * unit, 1, rtol=1e-6)

    official, one = query_frame(place, GRID, WINDOW, GRID, "image")
    centers, unit = query_frame(place, GRID, WINDOW, GRID, "window")
    np.testing.assert_allclose(official / one, centers / unit, rtol=1e-6)
    shared, one = query_frame(place, GRID, WINDOW, GRID, "shared")
    slots = (np.arange(4) + 0.5) / 4
    np.testing.assert_allclose(shared[:, :4, 0], np.tile(slots, (4, 1)))
    slots = (np.arange(3) + 0.5) / 3
    np.testing.assert_allclose(shared[:, ::4, 1], np.tile(slots, (4, 1)))
    assert (one == 1).all()


def build(mesh):
    model = WindowKeypointBias(
        LAYERS, HEADS, GRID, WINDOW, GRID, num_keypoints=KEYPOINTS, mesh=mesh
    )
    rng = np.random.default_rng(0)
    params = dict(
        kernel=rng.normal(size=(2 * KEYPOINTS, LAYERS, HEADS, 49)),
        bias=rng.normal(size=(LAYERS, HEADS, 49)),
    )
    params = jax.tree.map(jnp.float32, params)
    both = [places(False), places(True)]
    return lambda points: model.apply({"params": params}, points, both), params, both


def direct(params, keypoints, place, layer, mesh):
    """f(P) one query and key at a time, Eq. 8-11."""
    ids = compute_buckets(WINDOW)[0].ids
    centers, unit = query_frame(place, GRID, WINDOW, GRID, mesh)
    bias = np.zeros((len(keypoints), len(place), HEADS, *ids.shape))
    for b, n, i in np.ndindex(len(keypoints), *place.shape[:2]):
        relative = (centers[n, i] - keypoints[b] * unit).reshape(-1)
        table = np.einsum("p,phk->hk", relative, params["kernel"][:, layer])
        bias[b, n, :, i] = (table + params["bias"][layer])[:, ids[i]]
    return bias


@pytest.mark.parametrize("mesh", MESHES)
def test_bias_equals_the_direct_form_and_moves_with_the_person(mesh):
    apply, params, both = build(mesh)
    keypoints = np.random.default_rng(1).uniform(-0.2, 1.2, (2, KEYPOINTS, 2))
    keypoints = keypoints.astype(np.float32)
    run = quick_jit(apply)
    got = run(keypoints)
    for layer, place in enumerate(both):
        want = direct(params, keypoints, place, layer, mesh)
        np.testing.assert_allclose(got[layer], want, atol=1e-4)
    moved = run(keypoints + np.float32([0.5, 0]))[0]  # one of two windows right
    if mesh == "shared":
        np.testing.assert_allclose(got[0][:, 0], got[0][:, 1], atol=1e-5)
    else:  # windows 0, 1 above 2, 3
        np.testing.assert_allclose(moved[:, [1, 3]], got[0][:, [0, 2]], atol=1e-4)
    gradient = quick_jit(jax.grad(lambda p: sum(b.sum() for b in apply(p))))
    assert np.isfinite(gradient(jnp.asarray(keypoints))).all()


def test_missing_keypoints():
    keypoints = np.array([[[0.2, 0.4], [0.4, 0.8], [9.0, 9.0]]] * 3, np.float32)
    keypoints[1, 0] = np.nan, 0.5
    present = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 0]], bool)
    got = fill_missing(jnp.asarray(keypoints), jnp.asarray(present))
    np.testing.assert_allclose(got[0], [[0.2, 0.4], [0.4, 0.8], [0.3, 0.6]], rtol=1e-6)
    np.testing.assert_allclose(got[1], np.tile([0.4, 0.8], (3, 1)))
    np.testing.assert_array_equal(got[2], 0.5)
    np.testing.assert_array_equal(fill_missing(keypoints[:1]), keypoints[:1])
    gradient = jax.grad(lambda p: fill_missing(p, present).sum())(keypoints)
    assert np.isfinite(gradient).all()


def test_bad_input():
    model = WindowKeypointBias(1, HEADS, GRID, WINDOW, GRID, mesh="head")
    five = jnp.zeros((1, 5, 2))
    with pytest.raises(ValueError, match="unknown mesh 'head'"):
        model.init(jax.random.key(0), five, [places(False)])
    with pytest.raises(ValueError, match=r"must be \[B, 17, 2\]"):
        model.clone(mesh="window", num_keypoints=17).init(
            jax.random.key(0), five, [places(False)]
        )
