"""Sequences move as one, and their joints with them."""

import jax
import jax.numpy as jnp
import numpy as np

from kprpe_jax.augmentation.sequences import JOINT_MIRROR, move_sequences
from kprpe_jax.augmentation.spatial import Spatial
from tests.quick import quick_jit


def blobs(joints, height=24, width=18):
    """Frames with a bright disc at the first joint of each: [..., H, W]."""
    y, x = np.indices((height, width)) + 0.5
    points = joints[..., 0, :] * [width, height]
    apart = (x - points[..., :1, None]) ** 2 + (y - points[..., 1:, None]) ** 2
    return jnp.float32(np.exp(-apart / 6))


def center_of(frames):
    height, width = frames.shape[-2:]
    y, x = (np.indices((height, width)) + 0.5) / np.array([height, width])[
        :, None, None
    ]
    mass = frames.sum((-1, -2))
    return (
        np.stack([(frames * x).sum((-1, -2)), (frames * y).sum((-1, -2))], -1)
        / (mass[..., None])
    )


def test_joints_follow_the_picture_and_frames_of_a_sequence_move_alike(rng):
    joints = np.repeat(rng.uniform(0.4, 0.6, (3, 4, 1, 2)), 17, axis=2)
    settings = Spatial(
        rotation_prob=1.0, rotation_degrees=15.0, scale_prob=1.0, scale=(0.9, 1.1)
    )
    known = np.ones((3, 4, 17), bool)
    move = quick_jit(lambda *args: move_sequences(*args, settings))
    frames, points, mask = jax.device_get(
        move(jax.random.key(0), blobs(joints), jnp.float32(joints), known)
    )
    np.testing.assert_allclose(center_of(frames), points[:, :, 0], atol=0.02)
    assert np.abs(points - joints).max() > 0.01
    assert mask.all()
    assert 0 <= frames.min() <= frames.max() <= 1
    # One affine map for all frames of a sequence, another for the next one.
    before, after = joints[:, :, 0], points[:, :, 0]
    for a, b in zip(before, after, strict=True):
        ones = np.concatenate([a, np.ones((4, 1))], 1)
        solved, residual, *_ = np.linalg.lstsq(ones, b, rcond=None)
        assert residual.max(initial=0) < 1e-8


def test_a_mirrored_sequence_exchanges_left_and_right(rng):
    joints = jnp.float32(rng.uniform(0.1, 0.9, (2, 3, 17, 2)))
    frames = jnp.float32(rng.uniform(size=(2, 3, 6, 4)).round())
    known = rng.uniform(size=(2, 3, 17)) < 0.7
    move = quick_jit(move_sequences, static_argnums=4)
    arguments = jax.random.key(1), frames, joints, known
    flipped, points, mask = move(*arguments, Spatial(flip_prob=1.0))
    np.testing.assert_array_equal(flipped, frames[..., ::-1])
    mirror = np.array(JOINT_MIRROR)
    np.testing.assert_array_equal(mask, known[:, :, mirror])
    want = joints[:, :, mirror] * jnp.array([-1, 1]) + jnp.array([1, 0])
    np.testing.assert_allclose(points, want, atol=1e-5)
    assert mirror[mirror].tolist() == list(range(17))
    same = move(*arguments, Spatial())
    for got, before in zip(same, (frames, joints, known), strict=True):
        np.testing.assert_array_equal(got, before)
