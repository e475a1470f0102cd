"""Faces as they should not be: masked, behind sunglasses, cropped, turned.

Every function takes a key, images and keypoints and gives back images and keypoints, so
that the same seed makes the same queries for every network. What covers a face is
painted in the template's 112 x 112 pixels and laid on by the five points.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from kprpe_jax.geometry import affine, sampling
from kprpe_jax.geometry.point_fits import fit_similarity
from kprpe_jax.geometry.template import ARCFACE_112

# (rng, images [B, H, W, 3], keypoints [B, 5, 2]) -> the same two, altered
Alteration = Callable[[Array, Array, Array], tuple[Array, Array]]

_MASK_COLOR = ((79, 130, 183), (153, 199, 245))  # darkest and lightest, 0..255
_LENS_COLOR = ((4, 4, 4), (24, 22, 18))


def crop_faces(
    rng: Array, images: Array, keypoints: Array, *, share: float = 0.7
) -> tuple[Array, Array]:
    """Cut a random part out and enlarge it to the old size.

    Source: DeepFace-EMD, Sec. 5.2.1 (LFW-crop); its files have squares of floor(0.7 *
    128) pixels at whole offsets, bilinear.
    Args:
      rng: key.
      images: float32 [B, H, W, 3] in [-1, 1].
      keypoints: float32 [B, K, 2].
      share: of the sides that is left, in (0, 1].
    Returns: images and keypoints, moved alike; keypoints may leave [0, 1].
    """
    size = jnp.array(images.shape[2:0:-1])  # (width, height)
    side = jnp.floor(share * size + 1e-4)
    corner = jax.random.uniform(rng, (len(images), 2)) * (size - side + 1)
    corner = jnp.floor(corner)
    scale = jnp.broadcast_to(side / size, corner.shape)
    shrink = affine.scaling(scale, jnp.zeros_like(corner))
    return _warp(images, keypoints, affine.compose(shrink, affine.translation(corner)))


def turn_faces(
    rng: Array, images: Array, keypoints: Array, *, degrees: float = 30.0
) -> tuple[Array, Array]:
    """Turn faces about the middle of the image, uniformly up to an angle; black around.

    Args:
      rng, images, keypoints: as `crop_faces`.
      degrees: the largest angle, to both sides.
    """
    height, width = images.shape[1:3]
    angle = jax.random.uniform(rng, (len(images),), minval=-degrees, maxval=degrees)
    center = jnp.broadcast_to(jnp.array([width / 2, height / 2]), (len(images), 2))
    return _warp(images, keypoints, affine.rotation(angle, center))


def wear_mask(rng: Array, images: Array, keypoints: Array) -> tuple[Array, Array]:
    """Draw a pleated surgical mask from the bridge of the nose to the chin.

    Source: DeepFace-EMD, Sec. 5.2.2, which overlays pictures of masks by landmarks; its
    masks cover 20 to 35 % of the image in shades of blue.
    Args:
      rng, images: as `crop_faces`.
      keypoints: float32 [B, 5, 2], face order.
    """
    shape_rng, color_rng = jax.random.split(rng)
    x, y = _template_places(images, keypoints)
    jitter = jax.random.uniform(shape_rng, (3, len(images), 1, 1), minval=-1)
    top, bottom = 58 + 4 * jitter[0], 107 + 3 * jitter[1]
    half_width = 41 + 2 * jitter[2]
    across = jnp.square((x - 56) / half_width)
    edges = (y - top - 7 * across, bottom - 25 * across - y, 8 * (1 - across))
    pleats = 1 - 0.1 * (jnp.cos((y - 62) * (2 * jnp.pi / 11)) > 0.6)
    shade = pleats * (1 - 0.15 * across)
    color = _color(color_rng, _MASK_COLOR, len(images))
    return _cover(images, _inside(*edges), color, shade), keypoints


def wear_sunglasses(rng: Array, images: Array, keypoints: Array) -> tuple[Array, Array]:
    """Draw black sunglasses with temples over the eyes.

    Source: DeepFace-EMD, Sec. 5.2.2; its glasses are nearly black and cover 11 to 23 %
    of the image.
    Args:
      rng, images, keypoints: as `wear_mask`.
    """
    shape_rng, color_rng = jax.random.split(rng)
    x, y = _template_places(images, keypoints)
    jitter = jax.random.uniform(shape_rng, (3, len(images), 1, 1), minval=-1)
    half = (16.5 + 1.5 * jitter[0], 12.5 + 1.5 * jitter[1])
    height = 53 + 1.5 * jitter[2]
    out = jnp.abs(x - 56)  # both halves are alike
    lens = ((out - 18) / half[0]) ** 4 + ((y - height) / half[1]) ** 4
    bar = jnp.abs(y - height + 6) < 3  # bridge and temples
    covered = jnp.maximum(_inside(6 * (1 - lens)), bar & (out < 60))
    color = _color(color_rng, _LENS_COLOR, len(images))
    return _cover(images, covered, color, jnp.ones_like(x)), keypoints


ALTERATIONS: dict[str, Alteration] = {
    "crop": crop_faces,
    "mask": wear_mask,
    "sunglasses": wear_sunglasses,
    "turn": turn_faces,
}


def _warp(images: Array, keypoints: Array, matrix: Array) -> tuple[Array, Array]:
    """Warp by a matrix from OUTPUT pixels to INPUT pixels."""
    size = images.shape[1:3]
    moved = sampling.warp_affine(images, matrix, out_size=size, outside=-1.0)
    points = affine.transform_keypoints(
        keypoints, affine.invert(matrix), in_size=size, out_size=size
    )
    return moved, points


def _template_places(images: Array, keypoints: Array) -> tuple[Array, Array]:
    """(x, y) of every pixel in the template's pixels: float32 [B, H, W] each."""
    batch, height, width, _ = images.shape
    if keypoints.shape != (batch, 5, 2):
        raise ValueError(
            f"altered: keypoints must be [{batch}, 5, 2] to draw on {batch} images; "
            f"got {keypoints.shape}; give the five points of the faces."
        )
    pixels = keypoints * jnp.array([width, height], jnp.float32)
    template = jnp.broadcast_to(ARCFACE_112, pixels.shape)
    matrix = fit_similarity(pixels, template)
    y, x = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    places = jnp.stack([x, y], -1).reshape(1, -1, 2) + 0.5
    places = affine.apply(matrix, places).reshape(batch, height, width, 2)
    return places[..., 0], places[..., 1]


def _inside(*distances: Array) -> Array:
    """How much of a pixel lies inside of all edges, by distances in about pixels."""
    covered = [jnp.clip(distance + 0.5, 0.0, 1.0) for distance in distances]
    return jnp.stack(covered).min(0)


def _color(rng: Array, between: tuple, count: int) -> Array:
    """Random shades [B, 3] in [-1, 1]."""
    low, high = (jnp.array(x, jnp.float32) / 127.5 - 1 for x in between)
    return low + (high - low) * jax.random.uniform(rng, (count, 1))


def _cover(images: Array, covered: Array, color: Array, shade: Array) -> Array:
    """Paint so much of each pixel [B, H, W]; shade 1 is the full color."""
    paint = (color[:, None, None] + 1) * shade[..., None] - 1
    return images + covered[..., None] * (paint - images)
