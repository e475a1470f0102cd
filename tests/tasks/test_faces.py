"""Masks that faces wear in training."""

import jax
import numpy as np
import pytest

from kprpe_jax.configs import fine_tune_masked
from kprpe_jax.geometry.template import FACE_POINTS
from kprpe_jax.tasks import faces
from tests.quick import quick_jit
from tests.tasks import tiny


def test_a_share_of_the_faces_with_keypoints_wears_masks(rng):
    count = 64
    batch = {
        "image": rng.integers(0, 256, (count, 28, 28, 3)).astype(np.uint8),
        "keypoints": np.tile(np.float32(FACE_POINTS), (count, 1, 1)),
        "has_keypoints": np.arange(count) % 4 > 0,
    }
    wear = quick_jit(faces._wear_masks)
    plain = batch["image"] / np.float32(127.5) - 1
    for share, low, high in ((0.0, 0, 0), (0.5, 10, 38), (1.0, 48, 48)):
        got = np.asarray(wear(jax.random.key(1), batch, share))
        changed = np.abs(got - plain).max((1, 2, 3)) > 1e-5
        assert low <= changed.sum() <= high
        assert not changed[::4].any()
        np.testing.assert_allclose(got[:, :12], plain[:, :12], atol=1e-6)


@pytest.mark.parametrize(
    ("field", "value"),
    [("augmentation.mask_prob", 1.5), ("data.num_keypoints", 68)],
)
def test_masks_that_cannot_be_drawn(field, value):
    config = fine_tune_masked.get_config("mobilefacenet")
    config.augmentation.changes.spatial.flip_prob = 0.0
    config.update_from_flattened_dict({field: value})
    with pytest.raises(
        ValueError, match=r"mask_prob must lie in 0\.\.1, and be 0 wher"
    ):
        faces.augmentation(config, tiny.one_device())
