"""Faces that lie worse and worse in their images; the distortion is ours."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from kprpe_jax.geometry import affine, sampling


def misalign(
    rng: Array, images: Array, keypoints: Array, severity: Array
) -> tuple[Array, Array]:
    """Turn, scale and shift faces about their center, as poor alignment does.

    At severity 1: up to 30 degrees, scales of 0.75 to 1.25, shifts of 15 % of the side,
    all uniform. Bilinear, black outside.

    Args:
      rng: key.
      images: float32 [B, H, W, 3] in [-1, 1].
      keypoints: float32 [B, K, 2].
      severity: float32 scalar >= 0; at 0 nothing changes.
    Returns: images and keypoints, moved alike.
    """
    batch, height, width, _ = images.shape
    turn_rng, scale_rng, shift_rng = jax.random.split(rng, 3)
    size = jnp.array([width, height], jnp.float32)
    center = jnp.broadcast_to(size / 2, (batch, 2))
    angle = jax.random.uniform(turn_rng, (batch,), minval=-30, maxval=30)
    scale = jax.random.uniform(scale_rng, (batch, 1), minval=-0.25, maxval=0.25)
    shift = jax.random.uniform(shift_rng, (batch, 2), minval=-0.15, maxval=0.15)
    matrix = affine.compose(
        affine.rotation(severity * angle, center),
        affine.scaling(jnp.tile(1 + severity * scale, 2), center),
        affine.translation(severity * shift * size),
    )
    moved = sampling.warp_affine(
        images, affine.invert(matrix), out_size=(height, width), outside=-1.0
    )
    points = affine.transform_keypoints(
        keypoints, matrix, in_size=(height, width), out_size=(height, width)
    )
    return moved, points


def check_severities(severities: Sequence[float]) -> None:
    """Check that `misalign` neither mirrors nor loses a face.

    Raises: ValueError: a severity outside of [0, 4): at 4 a scale may be 0.
    """
    for severity in severities:
        if not 0 <= severity < 4:
            raise ValueError(
                "severities must lie in [0, 4), where scales of 1 - 0.25 "
                f"S are positive; got {severity}."
            )
