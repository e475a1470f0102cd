"""Digits on a larger black canvas: placed at random, or distorted as in affNIST.

Pure functions of a random key, to run inside the compiled step. "Ink" is what is
brighter than `keypoints.INK_THRESHOLD` of 255.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from kprpe_jax.core.input_spec import to_unit_range
from kprpe_jax.data.keypoints import INK_THRESHOLD
from kprpe_jax.geometry import affine, sampling


class AffineRanges(NamedTuple):
    """Ranges of the distortions at severity 1; the defaults are affNIST's.

    rotation_degrees: angle, uniform in -r .. r.
    shear: coefficient, uniform in -s .. s.
    scale: expansion, uniform in (low, high), sampled for x and for y.
    """

    rotation_degrees: float = 20.0
    shear: float = 0.2
    scale: tuple[float, float] = (0.8, 1.2)


def place_on_canvas(
    rng: jax.Array,
    images: jax.Array,
    keypoints: jax.Array,
    *,
    canvas_size: int,
    mode: Literal["random", "center"] = "random",
) -> tuple[jax.Array, jax.Array]:
    """Move images by whole pixels onto a black canvas.

    Args:
      rng: random key; unused by "center".
      images: [B, h, w, 1 or 3], 0..255.
      keypoints: [B, K, 2], (x, y) in 0..1 of the images; their box holds the ink.
      canvas_size: S, side of the canvas in pixels.
      mode: "random" samples the offset uniformly among those that keep the
        keypoints' box inside the canvas (a box larger than the canvas is centered);
        "center" centers the image's frame, as affNIST's untransformed digits.
    Returns: images float32 [B, S, S, 3] in [-1, 1] and keypoints float32 [B, K, 2]
      in 0..1 of the canvas.
    Raises: ValueError: shapes that do not fit, unknown mode.
    """
    _check("place_on_canvas", images, keypoints, canvas_size)
    batch, height, width, _ = images.shape
    size = jnp.array([width, height], jnp.float32)
    if mode == "random":
        low = keypoints.min(axis=1) * size
        high = keypoints.max(axis=1) * size
        # Away from rounding: box edges lie on whole pixels in most data sets.
        offset = _random_offset(rng, low + 1e-3, high - 1e-3, canvas_size)
    elif mode == "center":
        frame = jnp.array([(canvas_size - width) // 2, (canvas_size - height) // 2])
        offset = jnp.broadcast_to(frame, (batch, 2))
    else:
        raise ValueError(
            f"place_on_canvas: mode must be 'random' or 'center'; got {mode!r}; choose "
            "one of the two"
        )
    placed = _shift(images, offset, canvas_size)
    points = (keypoints * size + offset[:, None]) / canvas_size
    return _as_network_input(placed), points


def distort_on_canvas(
    rng: jax.Array,
    images: jax.Array,
    keypoints: jax.Array,
    *,
    canvas_size: int,
    severity: float | jax.Array = 1.0,
    ranges: AffineRanges = AffineRanges(),  # noqa: B008 - an immutable tuple
) -> tuple[jax.Array, jax.Array]:
    """Expand, shear and rotate images about their center, then place them at random.

    Around the center of the keypoints' box: independent expansion along x and y,
    then shear, then rotation. Then a whole-pixel offset, uniform among those that
    keep all ink inside the canvas (ink that does not fit is centered). Bilinear.
    Severity 0 is `place_on_canvas`, up to the sampled offset.

    Args:
      rng: random key.
      images: [B, h, w, 1 or 3], 0..255.
      keypoints: [B, K, 2], (x, y) in 0..1 of the images.
      canvas_size: S, side of the canvas in pixels.
      severity: >= 0, multiplies the ranges (of scale: the distance from 1).
      ranges: of the distortions at severity 1.
    Returns: images float32 [B, S, S, 3] in [-1, 1] and keypoints float32 [B, K, 2]
      in 0..1 of the canvas, moved by the same map.
    Raises: ValueError: shapes that do not fit.
    """
    _check("distort_on_canvas", images, keypoints, canvas_size)
    batch, height, width, _ = images.shape
    rotate_rng, shear_rng, scale_rng, place_rng = jax.random.split(rng, 4)
    size = jnp.array([width, height], jnp.float32)
    center = (keypoints.min(axis=1) + keypoints.max(axis=1)) / 2 * size
    angle = severity * jax.random.uniform(
        rotate_rng, (batch,), minval=-ranges.rotation_degrees,
        maxval=ranges.rotation_degrees,
    )  # fmt: skip
    slant = severity * jax.random.uniform(
        shear_rng, (batch,), minval=-ranges.shear, maxval=ranges.shear
    )
    expansion = jax.random.uniform(
        scale_rng, (batch, 2), minval=ranges.scale[0], maxval=ranges.scale[1]
    )
    matrix = affine.compose(
        affine.scaling(1 + severity * (expansion - 1), center),
        affine.shear(slant, center),
        affine.rotation(angle, center),
    )
    offset = _random_offset(place_rng, *_ink_extent(images, matrix), canvas_size)
    matrix = affine.compose(matrix, affine.translation(offset))
    canvas = (canvas_size, canvas_size)
    warped = sampling.warp_affine(images, affine.invert(matrix), out_size=canvas)
    points = affine.transform_keypoints(
        keypoints, matrix, in_size=(height, width), out_size=canvas
    )
    return _as_network_input(warped), points


def _ink_extent(images: jax.Array, matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Lowest and highest (x, y) [B, 2] in pixels that the mapped ink reaches."""
    batch, height, width, _ = images.shape
    ink = (images > INK_THRESHOLD).any(axis=-1)
    ink |= ~ink.any(axis=(1, 2), keepdims=True)  # no ink: the whole frame
    y, x = jnp.meshgrid(
        jnp.arange(height) + 0.5, jnp.arange(width) + 0.5, indexing="ij"
    )
    centers = jnp.stack([x, y], axis=-1).reshape(1, -1, 2)
    moved = affine.apply(matrix, centers)  # [B, h * w, 2]
    ink = ink.reshape(batch, -1, 1)
    # Half the extent of one pixel's image, less a hair against rounding.
    half = jnp.abs(matrix[..., :2]).sum(axis=-1) / 2 - 1e-3
    low = jnp.where(ink, moved, jnp.inf).min(axis=1) - half
    high = jnp.where(ink, moved, -jnp.inf).max(axis=1) + half
    return low, high


def _random_offset(
    rng: jax.Array, low: jax.Array, high: jax.Array, canvas_size: int
) -> jax.Array:
    """Whole-pixel offsets int32 [B, 2] that keep [low, high] inside the canvas."""
    first = jnp.ceil(-low).astype(jnp.int32)
    last = jnp.floor(canvas_size - high).astype(jnp.int32)
    sampled = jax.random.randint(rng, first.shape, first, jnp.maximum(first, last) + 1)
    return jnp.where(first <= last, sampled, (first + last) // 2)


def _shift(images: jax.Array, offset: jax.Array, canvas_size: int) -> jax.Array:
    """Move images [B, h, w, C] by whole pixels onto black [B, S, S, C]."""
    channels = images.shape[-1]
    margin = canvas_size
    border = ((0, 0), (margin, margin), (margin, margin), (0, 0))
    padded = jnp.pad(images, border)

    def cut(image: jax.Array, offset: jax.Array) -> jax.Array:
        start = (margin - offset[1], margin - offset[0], 0)
        size = (canvas_size, canvas_size, channels)
        return jax.lax.dynamic_slice(image, start, size)

    return jax.vmap(cut)(padded, offset)


def _as_network_input(images: jax.Array) -> jax.Array:
    """[B, S, S, 1 or 3] in 0..255 to float32 [B, S, S, 3] in [-1, 1]."""
    return jnp.broadcast_to(to_unit_range(images), (*images.shape[:-1], 3))


def _check(
    function: str, images: jax.Array, keypoints: jax.Array, canvas_size: int
) -> None:
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"{function}: images must be [B, h, w, 1 or 3]; got {images.shape}; add "
            "the channel axis"
        )
    if keypoints.ndim != 3 or keypoints.shape != (
        images.shape[0],
        *keypoints.shape[1:2],
        2,
    ):
        raise ValueError(
            f"{function}: keypoints must be [B, K, 2] with B = {images.shape[0]}; got "
            f"{keypoints.shape}; give one set of points per image"
        )
    if canvas_size < 1:
        raise ValueError(
            f"{function}: canvas_size must be >= 1 pixel; got {canvas_size}; 40 is "
            "affNIST's"
        )
