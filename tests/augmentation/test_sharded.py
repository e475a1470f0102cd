"""A batch augmented on a mesh is the batch augmented on one device."""

from functools import partial

import jax
import numpy as np
import pytest

from kprpe_jax.augmentation.recipe import augment, make_recipe
from kprpe_jax.augmentation.sharded import augment_sharded
from kprpe_jax.core.mesh import batch_sharding, make_mesh


@pytest.mark.slow
def test_the_same_as_on_one_device_and_nothing_is_gathered(rng):
    images = rng.integers(0, 256, (16, 24, 24, 3), np.uint8)
    keypoints = rng.random((16, 5, 2)).astype(np.float32)
    recipe = make_recipe("kprpe")
    key = jax.random.key(3)
    want = jax.jit(partial(augment, recipe=recipe))(key, images, keypoints)

    mesh = make_mesh({"data": 2, "fsdp": 2, "class": 2})
    rows = batch_sharding(mesh)
    placed = jax.device_put((images, keypoints), rows)
    run = jax.jit(partial(augment_sharded, recipe=recipe, mesh=mesh))
    compiled = run.lower(key, *placed).compile()
    got = compiled(key, *placed)
    for one, many in zip(want, got, strict=True):
        assert many.sharding.is_equivalent_to(rows, many.ndim)
        np.testing.assert_allclose(many, one, atol=1e-5)
    assert np.abs(np.asarray(want[0])[..., 0] - images[..., 0] / 127.5 + 1).max() > 0.1
    assert "all-gather" not in compiled.as_text()
