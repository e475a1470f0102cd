"""Paint on an image in layers with soft edges; noise without random keys."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp


class View(NamedTuple):
    """The points of a face that the pixels of an image show.

    x, y: float32 [S, S], face coordinates of the pixel centers.
    ax: |x|: symmetric parts are rendered once.
    pixel: float32 scalar, size of a pixel in face coordinates.
    shade: float32 [S, S], light that the skin reflects, about 1.
    """

    x: jax.Array
    y: jax.Array
    ax: jax.Array
    pixel: jax.Array
    shade: jax.Array


def cover(view: View, distance: jax.Array, *, soft: float = 0.0) -> jax.Array:
    """Share of each pixel that a shape covers.

    Args:
      view: of the pixels.
      distance: [S, S] to the shape's outline, negative inside, face coordinates.
      soft: width of the edge beyond a pixel's, face coordinates.
    Returns: [S, S] in 0..1.
    """
    return jnp.clip(0.5 - distance / (1.2 * view.pixel + soft), 0, 1)


class Paint(NamedTuple):
    """One coat of paint.

    color: float32 [3], RGB in 0..1.
    alpha: float32 [S, S] or a number, 0..1.
    tone: float32 [S, S] or a number, brightness.
    """

    color: jax.Array
    alpha: jax.Array | float
    tone: jax.Array | float = 1.0


def flatten(layers: Sequence[Paint]) -> jax.Array:
    """Lay all layers over one another, and pack each pixel into one word.

    A compiler that fuses the layers into one loop evaluates them once per number that
    comes out of it: so red, green and blue leave it as one number.

    Args:
      layers: from the backmost, which covers all, to the foremost.
    Returns: int32 [S, S], 10 bits for each channel, for `unpack`.
    """
    packed = 0
    for channel in range(3):
        value = 0.0
        for layer in layers:
            value = value + layer.alpha * (layer.color[channel] * layer.tone - value)
        level = jnp.round(jnp.clip(value, 0, 1) * 1023).astype(jnp.int32)
        packed = packed | (level << (10 * channel))
    return packed


def unpack(packed: jax.Array) -> jax.Array:
    """Turn pixels packed by `flatten` [S, S] to float32 [3, S, S] in 0..1."""
    channels = [(packed >> (10 * channel)) & 1023 for channel in range(3)]
    return jnp.stack(channels).astype(jnp.float32) / 1023


def wave(phase: jax.Array) -> jax.Array:
    """A triangle wave of period 4 between -1 and 1: a sine without its cost."""
    return 1 - jnp.abs(phase - 4 * jnp.floor(phase / 4 + 0.25) - 1)


def hash_bits(a: jax.Array, b: jax.Array, seed: jax.Array) -> jax.Array:
    """Mix integers to 32 random-looking bits, elementwise and the same anywhere.

    Source: the finaliser of MurmurHash3 (Appleby, public domain) on a sum of products.
    Args:
      a, b: int32 or uint32 [...].
      seed: uint32.
    Returns: uint32 [...].
    """
    bits = a.astype(jnp.uint32) * jnp.uint32(0x9E3779B1)
    bits = (bits ^ seed) + b.astype(jnp.uint32) * jnp.uint32(0x85EBCA77)
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)


def byte(bits: jax.Array, place: int) -> jax.Array:
    """One of the four bytes of uint32 bits as float32 in 0..1."""
    return ((bits >> (8 * place)) & 0xFF).astype(jnp.int32).astype(jnp.float32) / 255
