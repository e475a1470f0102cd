import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.evaluation.misaligned import check_severities, misalign


def spots(points, size=48):
    """Black images with a bright spot at each of their points [B, 1, 2]."""
    y, x = np.mgrid[:size, :size] + 0.5
    squares = [(x - px * size) ** 2 + (y - py * size) ** 2 for px, py in points[:, 0]]
    light = np.exp(-np.array(squares) / 8)
    return jnp.asarray(2 * light[..., None].repeat(3, -1) - 1, jnp.float32)


@pytest.mark.slow
def test_severity_zero_changes_nothing():
    points = np.full((3, 1, 2), 0.4, np.float32)
    images = spots(points)
    moved, keypoints = misalign(jax.random.key(0), images, points, jnp.float32(0))
    np.testing.assert_allclose(moved, images, atol=1e-5)
    np.testing.assert_allclose(keypoints, points, atol=1e-6)


@pytest.mark.slow
def test_keypoints_follow_the_picture_and_differ_by_row():
    points = np.full((6, 1, 2), 0.42, np.float32)
    moved, keypoints = misalign(
        jax.random.key(1), spots(points), points, jnp.float32(1)
    )
    light = np.asarray(moved[..., 0]) + 1
    assert light.min() >= -1e-5  # black outside
    y, x = np.mgrid[:48, :48] + 0.5
    total = light.sum((1, 2))
    center = np.stack([(light * x).sum((1, 2)), (light * y).sum((1, 2))], -1)
    np.testing.assert_allclose(center / total[:, None] / 48, keypoints[:, 0], atol=4e-3)
    assert np.abs(np.diff(keypoints[:, 0], axis=0)).max() > 0.02


@pytest.mark.parametrize("severity", [-1.0, 4.0, np.nan, np.inf])
def test_severities_that_lose_the_face_are_refused(severity):
    with pytest.raises(ValueError, match=r"severities must lie in \[0, 4\), .*; got"):
        check_severities((1.0, severity))
