"""Move whole sequences of silhouettes: all frames of one alike, joints along."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kprpe_jax.augmentation.spatial import Spatial, move_keypoints, sample, warp

# In a mirrored image joint k (COCO order) is the old joint JOINT_MIRROR[k].
JOINT_MIRROR = (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)


def move_sequences(
    rng: Array,
    silhouettes: Array,
    keypoints: Array,
    joint_mask: Array,
    settings: Spatial,
) -> tuple[Array, Array, Array]:
    """Flip, turn, scale and shift each sequence by its own sample.

    Args:
      rng: key.
      silhouettes: float32 [B, T, H, W] in [0, 1]; 0 comes in from outside.
      keypoints: float32 [B, T, 17, 2], fractions of the frame.
      joint_mask: bool [B, T, 17]; in a mirrored sequence left and right change places.
      settings: see `Spatial`; static.
    Returns: the three, moved alike.
    """
    size = silhouettes.shape[2:]
    rngs = jax.vmap(jax.random.fold_in, (None, 0))(rng, jnp.arange(len(silhouettes)))

    def one(rng, frames, points, known):
        motion = sample(rng, settings, size=size)
        # Frames stand as channels, and black is -1, as in `warp`.
        image = warp(2 * jnp.moveaxis(frames, 0, -1) - 1, motion, settings)
        moved = jax.vmap(
            lambda p: move_keypoints(p, motion, size=size, mirror=JOINT_MIRROR)
        )(points)
        mirrored = known[:, np.array(JOINT_MIRROR)]
        frames = (jnp.moveaxis(image, -1, 0) + 1) / 2
        return frames, moved, jnp.where(motion.flip, mirrored, known)

    return jax.vmap(one)(rngs, silhouettes, keypoints, joint_mask)
