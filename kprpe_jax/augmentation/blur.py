"""Box blur, Gaussian blur and down-up-sampling: all are matrices along each axis."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_HIGHEST = jax.lax.Precision.HIGHEST


class Blur(NamedTuple):
    """How often and how much images lose detail.

    prob: of any loss.
    weights: how often it is a box blur, a Gaussian blur, or shrinking and enlarging.
    box_width: largest width of the box in pixels of an image 112 high; the width is
      a whole number from 1 there, and follows the image's size.
    sigma: largest deviation of the Gaussian, in the same pixels, uniform from 0.
    side: (low, high), the small image's share of the side, uniform; how it is shrunk
      and how enlarged are sampled, each for itself, from INTERPOLATIONS.
    """

    prob: float = 0.0
    weights: tuple[float, float, float] = (0.1, 0.1, 0.8)
    box_width: int = 9
    sigma: float = 4.0
    side: tuple[float, float] = (0.2, 1.0)


class BlurSample(NamedTuple):
    """The blur of one image: int32 and float32 scalars.

    kind: 0 none, 1 box, 2 Gaussian, 3 shrinking and enlarging.
    """

    kind: jax.Array
    box_width: jax.Array
    sigma: jax.Array
    side: jax.Array
    shrink: jax.Array
    enlarge: jax.Array


def sample(rng: jax.Array, settings: Blur) -> BlurSample:
    """Sample one image's blur.

    Args:
      rng: random key.
      settings: see `Blur`.
    Returns: see `BlurSample`.
    """
    numbers = jax.random.uniform(rng, (7,))  # one generator for all
    blurs = numbers[0] < settings.prob
    shares = np.cumsum(settings.weights) / np.sum(settings.weights)
    kind = 1 + (numbers[1] >= shares[:2].astype(np.float32)).sum()
    low, high = settings.side
    how = jnp.floor(numbers[2:4] * len(INTERPOLATIONS)).astype(jnp.int32)
    return BlurSample(
        kind=jnp.where(blurs, kind, 0),
        box_width=1 + jnp.floor(numbers[4] * settings.box_width),
        sigma=numbers[5] * settings.sigma,
        side=low + (high - low) * numbers[6],
        shrink=how[0],
        enlarge=how[1],
    )


def apply(image: jax.Array, sampled: BlurSample) -> jax.Array:
    """Blur one image; the same along both axes.

    Args:
      image: float32 [H, W, 3] in [-1, 1].
      sampled: from `sample`.
    Returns: float32 [H, W, 3]; kind 0 is exact.
    """
    height, width = image.shape[:2]
    scale = height / 112

    def matrix(size: int) -> jax.Array:
        return jax.lax.switch(
            sampled.kind - 1,
            [
                lambda: box_matrix(size, sampled.box_width * scale),
                lambda: gaussian_matrix(size, sampled.sigma * scale),
                lambda: resize_matrix(
                    size,
                    jnp.maximum(jnp.floor(sampled.side * size), 1),
                    shrink=sampled.shrink,
                    enlarge=sampled.enlarge,
                ),
            ],
        )

    def blur() -> jax.Array:
        rows = matrix(height)
        columns = rows if width == height else matrix(width)
        return jnp.clip(blur_with(image, rows, columns), -1, 1)

    return jax.lax.cond(sampled.kind > 0, blur, lambda: image)


def blur_with(image: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Mix rows with rows and columns with columns.

    Args:
      image: [H, W, C].
      rows: [h, H], weights of the old rows in the new ones.
      columns: [w, W].
    Returns: float32 [h, w, C].
    """
    mixed = jnp.einsum("ih,hwc->iwc", rows, image, precision=_HIGHEST)
    return jnp.einsum("jw,iwc->ijc", columns, mixed, precision=_HIGHEST)


def box_matrix(size: int, width: jax.Array) -> jax.Array:
    """Mean over a window; beyond the border the outermost pixel goes on.

    Args:
      size: pixels along the axis.
      width: of the window in pixels, >= 1; its outermost pixels count by the share that
        lies inside, so that the window is centered whatever its width.
    Returns: float32 [size, size]; rows sum to 1.
    """
    return _integrate(size, lambda x: jnp.clip(x / width + 0.5, 0, 1))


def gaussian_matrix(size: int, sigma: jax.Array) -> jax.Array:
    """Gaussian, integrated over each pixel; beyond the border the outermost goes on.

    Args:
      size: pixels along the axis.
      sigma: standard deviation in pixels, >= 0; 0 is the identity.
    Returns: float32 [size, size]; rows sum to 1.
    """
    sigma = jnp.maximum(sigma, 1e-3)
    return _integrate(size, lambda x: jax.scipy.stats.norm.cdf(x / sigma))


def _nearest(x: jax.Array) -> jax.Array:
    return ((x > -0.5) & (x <= 0.5)).astype(jnp.float32)


def _bilinear(x: jax.Array) -> jax.Array:
    return jnp.maximum(1 - jnp.abs(x), 0)


def _bicubic(x: jax.Array) -> jax.Array:
    """Keys' cubic convolution with a = -1/2."""
    x = jnp.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return jnp.where(x < 1, near, jnp.where(x < 2, far, 0))


def _lanczos(x: jax.Array) -> jax.Array:
    return jnp.where(jnp.abs(x) < 3, jnp.sinc(x) * jnp.sinc(x / 3), 0)


# name -> (weight of a pixel at a distance, whether it widens when an image shrinks).
INTERPOLATIONS = {
    "nearest": (_nearest, False),
    "area": (_nearest, True),
    "bilinear": (_bilinear, True),
    "bicubic": (_bicubic, True),
    "lanczos": (_lanczos, True),
}


def resize_matrix(
    size: int, small: jax.Array, *, shrink: jax.Array, enlarge: jax.Array
) -> jax.Array:
    """Shrink an axis and enlarge it again, with Pillow's interpolations.

    Both steps in one matrix: unlike in Pillow, the small image is neither rounded nor
    clipped.

    Args:
      size: pixels along the axis.
      small: pixels of the small image, a whole number in 1..size.
      shrink, enlarge: int32, places in INTERPOLATIONS.
    Returns: float32 [size, size]; rows sum to 1.
    """
    down = _resize(size, size, small, shrink)
    up = _resize(size, small, size, enlarge)
    return jnp.matmul(up, down, precision=_HIGHEST)


def _resize(
    size: int, old: jax.Array | int, new: jax.Array | int, how: jax.Array
) -> jax.Array:
    """Weights [size, size] of `old` pixels in `new` ones; the rest, if any, is 0."""
    index = jnp.arange(size, dtype=jnp.float32)
    ratio = old / new
    center = (index + 0.5) * ratio
    distance = index + 0.5 - center[:, None]  # [new, old]
    wide = jnp.maximum(ratio, 1)
    weights = jax.lax.switch(
        how,
        [
            lambda kernel=kernel, widens=widens: kernel(
                distance / wide if widens else distance
            )
            for kernel, widens in INTERPOLATIONS.values()
        ],
    )
    weights = jnp.where((index < old) & (index[:, None] < new), weights, 0)
    total = weights.sum(axis=1, keepdims=True)
    return weights / jnp.where(index[:, None] < new, total, 1)


def _integrate(size: int, cumulative) -> jax.Array:
    """Weights of a window given by its cumulative distribution over offsets."""
    index = jnp.arange(size, dtype=jnp.float32)
    edges = jnp.arange(1, size, dtype=jnp.float32) - 0.5  # between neighboring pixels
    inner = cumulative(edges - index[:, None])  # [size, size - 1]
    # All that lies outside falls to the outermost pixels.
    below = jnp.pad(inner, ((0, 0), (1, 0)))
    above = jnp.pad(inner, ((0, 0), (0, 1)), constant_values=1)
    return above - below
