"""Flows as pictures: which patch of a gallery face explains each patch of the query."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from kprpe_jax.core.checks import check_option

INTENSITIES = ("min_max", "max")


class Correspondence(NamedTuple):
    """What to draw at each place.

    Attributes:
      index: int32 [..., N], the patch shown there.
      intensity: float32 [..., N] in [0, 1], how bright.
    """

    index: Array
    intensity: Array


def correspondence(flow: Array) -> Correspondence:
    """For each query patch the gallery patch that most of its weight goes to.

    Source: DeepFace-EMD, Sec. 3.2 and Eq. 3.9.
    Args:
      flow: float32 [..., N, M], from `earth_movers`.
    Returns: index of gallery patches at the places of query patches; intensity 1
      everywhere where all of the largest flows are equal.
    """
    return Correspondence(
        flow.argmax(-1).astype(jnp.int32), _stretch(flow.max(-1), "min_max")
    )


def official_correspondence(
    flow: Array, *, intensity: str = "min_max"
) -> Correspondence:
    """The official code's rule: at gallery places indices of query patches.

    The code draws them from the gallery image all the same. Brightness is the weight of
    the gallery patch, not the largest flow.

    Args:
      flow: float32 [..., N, M], from `earth_movers`.
      intensity: `min_max` as in the two-image script, `max` as in the demo.
    Returns: index and intensity [..., M].
    Raises: ValueError: unknown intensity.
    """
    check_option("official_correspondence", "intensity", intensity, INTENSITIES)
    return Correspondence(
        flow.argmax(-2).astype(jnp.int32), _stretch(flow.sum(-2), intensity)
    )


def flow_picture(
    image: Array,
    shown: Correspondence,
    *,
    grid: tuple[int, int],
    source: tuple[int, int],
) -> Array:
    """An image put together from the patches of another.

    Args:
      image: [H, W, 3], the gallery face, in [0, 1] so that intensity 0 is black.
      shown: of one pair, [N].
      grid: (rows, columns) of the places, N in all: the query's.
      source: (rows, columns) of the patches of `image`; its size is a multiple.
    Returns: float32 [rows * H / source rows, columns * W / source columns, 3].
    Raises: ValueError: grids that do not fit the image or the correspondence.
    """
    height, width = image.shape[0] // source[0], image.shape[1] // source[1]
    whole = (height * source[0], width * source[1]) == image.shape[:2]
    if not whole or shown.index.shape != (grid[0] * grid[1],):
        raise ValueError(
            "flow_picture: source must divide the image and grid have one place per "
            f"index; got {source} for an image of {image.shape[:2]} and {grid} for "
            f"indices {shown.index.shape}; resize the image or correct the grid."
        )
    cut = image.reshape(source[0], height, source[1], width, -1).swapaxes(1, 2)
    cut = cut.reshape(-1, height, width, image.shape[-1])[shown.index]
    cut = cut * shown.intensity[:, None, None, None]
    rows = cut.reshape(*grid, height, width, -1).swapaxes(1, 2)
    return rows.reshape(grid[0] * height, grid[1] * width, -1)


def _stretch(values: Array, rule: str) -> Array:
    """To [0, 1]: divided by the maximum, with `min_max` after the minimum is taken."""
    low = values.min(-1, keepdims=True) if rule == "min_max" else 0.0
    span = values.max(-1, keepdims=True) - low
    return jnp.where(span > 0, (values - low) / jnp.where(span > 0, span, 1.0), 1.0)
