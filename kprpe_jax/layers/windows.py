"""Cut feature maps of any number of axes into windows, plain and shifted.

A map whose sides are no multiples of the window is padded with zeros at the end of each
axis, rolled back by the shift, and cut. Which place a token came from is a NumPy
constant; masks and position bias follow from it.

Source: Liu et al., Swin Transformer, 2021, Sec. 3.2.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array


class Windows(NamedTuple):
    """How a map is cut. One integer per axis each.

    Attributes:
      grid: tokens of the map.
      window: tokens of a window.
      shift: how far the map is rolled back first; 0 = not.
    """

    grid: tuple[int, ...]
    window: tuple[int, ...]
    shift: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Windows along each axis."""
        return tuple(-(-g // w) for g, w in zip(self.grid, self.window, strict=True))

    @property
    def padded(self) -> tuple[int, ...]:
        """Tokens of the padded map."""
        return tuple(n * w for n, w in zip(self.counts, self.window, strict=True))


def plan_windows(
    grid: tuple[int, ...], window: tuple[int, ...], *, shifted: bool, cut: bool
) -> Windows:
    """Decide windows and shift.

    Args:
      grid, window: tokens along each axis.
      shifted: roll by half a window; never on an axis that one window covers.
      cut: a window longer than an axis is cut to it (Swin V1), else the axis is padded
        to the window (Swin V2).
    Raises: ValueError: grid and window have other numbers of axes, or a side below 1.
    """
    if len(grid) != len(window) or min(*grid, *window) < 1:
        raise ValueError(
            "plan_windows: grid and window must have one positive size per axis; got "
            f"{tuple(grid)} and {tuple(window)}; check image_size and window."
        )
    if cut:
        window = tuple(min(g, w) for g, w in zip(grid, window, strict=True))
    pairs = list(zip(grid, window, strict=True))
    shift = tuple(w // 2 if shifted and g > w else 0 for g, w in pairs)
    return Windows(tuple(grid), tuple(window), shift)


def partition(maps: Array, plan: Windows) -> Array:
    """[B, *grid, C] -> [B, windows, tokens of a window, C], padding is 0."""
    axes = range(1, maps.ndim - 1)
    ends = [(0, p - g) for p, g in zip(plan.padded, plan.grid, strict=True)]
    maps = jnp.pad(maps, [(0, 0), *ends, (0, 0)])
    return _cut(jnp.roll(maps, [-s for s in plan.shift], axes), plan)


def merge(windows: Array, plan: Windows) -> Array:
    """[B, windows, tokens of a window, C] -> [B, *grid, C]; undoes `partition`."""
    batch, width, rank = windows.shape[0], windows.shape[-1], len(plan.grid)
    x = windows.reshape(batch, *plan.counts, *plan.window, width)
    order = [axis for n in range(rank) for axis in (1 + n, 1 + rank + n)]
    x = x.transpose(0, *order, 1 + 2 * rank).reshape(batch, *plan.padded, width)
    x = jnp.roll(x, plan.shift, range(1, 1 + rank))
    return x[(slice(None), *(slice(g) for g in plan.grid))]


def token_places(plan: Windows) -> np.ndarray:
    """Where in the map each token of each window comes from.

    Returns: int32 [windows, tokens of a window, axes], in the padded map; the second
      part of a window that wraps around comes from the start of the axis.
    """
    sides = [
        np.roll(np.arange(p, dtype=np.int32), -s)
        for p, s in zip(plan.padded, plan.shift, strict=True)
    ]
    places = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1)
    return _cut(places[None], plan)[0]


def pair_mask(plan: Windows, *, mask_padding: bool) -> np.ndarray:
    """Which keys each query may attend to.

    Tokens that only the roll has brought together do not attend to each other. Padding
    attends to all of its region, so no row is empty; its outputs are cut off.

    Args:
      mask_padding: padding is no key for the map's tokens; the official networks do
        let them attend to it.
    Returns: bool [windows, tokens, tokens], query before key.
    """
    places = token_places(plan)
    wrapped = places < np.array(plan.shift)
    mask = (wrapped[:, :, None] == wrapped[:, None]).all(-1)
    if mask_padding:
        inside = (places < np.array(plan.grid)).all(-1)
        mask &= inside[:, None] | ~inside[:, :, None]
    return mask


def _cut(maps: Array | np.ndarray, plan: Windows) -> Array | np.ndarray:
    """[B, *padded, C] -> [B, windows, tokens of a window, C]."""
    rank = len(plan.grid)
    sides = zip(plan.counts, plan.window, strict=True)
    x = maps.reshape(maps.shape[0], *(n for pair in sides for n in pair), -1)
    order = (*range(1, 2 * rank, 2), *range(2, 2 * rank + 1, 2))
    x = x.transpose(0, *order, 2 * rank + 1)
    tokens = int(np.prod(plan.window))
    return x.reshape(maps.shape[0], -1, tokens, maps.shape[-1])
