"""Pooling over time and strips, and the heads of parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.layers.parts import PartHeads, horizontal_pyramid, set_pooling


def test_set_pooling_sees_valid_frames_only():
    maps = np.random.default_rng(0).normal(size=(3, 4, 2, 1, 5)).astype(np.float32)
    mask = np.array([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]], bool)
    got = set_pooling(jnp.asarray(maps), jnp.asarray(mask))
    np.testing.assert_array_equal(got[0], np.maximum(maps[0, 0], maps[0, 2]))
    np.testing.assert_array_equal(got[1], 0)
    np.testing.assert_array_equal(got[2], maps[2].max(0))
    gradient = jax.grad(lambda m: set_pooling(m, mask).sum())(maps)
    assert np.isfinite(gradient).all()
    assert (gradient[~mask] == 0).all()


def test_gradient_of_a_maximum_goes_to_the_first_of_equal_values():
    maps = jnp.ones((1, 3, 2, 2, 1))
    gradient = jax.grad(lambda m: set_pooling(m, jnp.ones((1, 3), bool)).sum())(maps)
    np.testing.assert_array_equal(gradient[0, :, 0, 0, 0], [1, 0, 0])
    gradient = jax.grad(lambda m: horizontal_pyramid(m, (1,)).sum())(maps[:, 0])
    np.testing.assert_allclose(gradient[0, ..., 0], [[1.25, 0.25], [0.25, 0.25]])


def test_pyramid_equals_loops():
    maps = np.random.default_rng(0).normal(size=(2, 6, 3, 4)).astype(np.float32)
    got = horizontal_pyramid(jnp.asarray(maps), (1, 3))
    strips = [slice(0, 6), slice(0, 2), slice(2, 4), slice(4, 6)]
    for part, rows in enumerate(strips):
        pixels = maps[:, rows].reshape(2, -1, 4)
        np.testing.assert_allclose(
            got[:, part], pixels.mean(1) + pixels.max(1), rtol=1e-5, atol=1e-6
        )
    with pytest.raises(ValueError, match=r"divide the 6 rows of the map; got \(4,\)"):
        horizontal_pyramid(jnp.asarray(maps), (4,))


@pytest.mark.slow
def test_heads_keep_parts_apart():
    heads = PartHeads(part_dim=3, num_classes=2)
    parts = jax.random.normal(jax.random.key(0), (4, 2, 5))
    variables = heads.init(jax.random.key(1), parts, train=False)
    params = variables["params"]
    stats = {"norm": {"mean": jnp.arange(6.0), "var": jnp.arange(1.0, 7.0)}}
    variables = {"params": params, "batch_stats": stats}
    embeddings, logits = heads.apply(variables, parts, train=False)
    for b, p in np.ndindex(4, 2):
        want = parts[b, p] @ params["kernel"][p]
        np.testing.assert_allclose(embeddings[b, p], want, atol=1e-6)
        places = np.arange(3) * 2 + p  # channel slow, part fast
        normed = (want - places) / np.sqrt(places + 1 + 1e-5)
        classes = params["classes"][p]
        cosines = normed @ classes / np.linalg.norm(classes, axis=0)
        np.testing.assert_allclose(
            logits[b, p], cosines / np.linalg.norm(normed), atol=1e-5
        )
