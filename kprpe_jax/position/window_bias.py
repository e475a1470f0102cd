"""Position bias inside windows: learned by offset, continuous, or from keypoints.

How keypoints are expressed relative to a window. A token of the map has its own place
in the image, however the map was padded, rolled and cut. Its bias row is read from

    D' = (center of the token - keypoint) / side of the window

that is, both are measured in windows: mesh grid and keypoint stand in the window's own
frame, whose origin, the window's corner, cancels in the difference. A window that a
shift wraps around the border is two pieces of windows that stick out of the image.
Tokens of one piece do not attend to the other, and each piece has its own frame, so a
token keeps its place in the image. Padding lies outside the image; its rows change
nothing. A bias of this kind moves with the person: shift image and keypoints by one
window and every bias moves along; and the linear layer sees numbers of the same size
in a window whatever the stage.

Three mesh grids M (`mesh`), Eq. 8:
  window  the above; true to the pixel also where a map does not cover the whole image.
  image   the official code's: the map's grid stretched to 0..1 of the image, keypoints
          in the same unit. But for the stretching it is `window` with W divided by the
          number of windows along the axis, hence with another learning rate.
  shared  the words of Sec. 5 taken literally: the grid of one window in 0..1, keypoints
          in fractions of the image. All windows share one table; where a window lies
          relative to the keypoints never enters.

All are linear in the keypoints, so the bias is A - g as in `keypoint_bias`: A knows
window and query but no image, g is one table per image that all its windows share.
"""

from collections.abc import Sequence
from functools import lru_cache

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from kprpe_jax.core.checks import check_option
from kprpe_jax.position.buckets import Buckets, compute_buckets
from kprpe_jax.position.keypoint_bias import grid_table, keypoint_table
from kprpe_jax.position.lookup import lookup, lookup_rows, num_buckets

MESHES = ("window", "image", "shared")


@lru_cache(maxsize=64)
def offset_buckets(window: tuple[int, ...], table: tuple[int, ...]) -> Buckets:
    """A bucket for every offset query - key, row-major, the first axis slowest.

    Source: Liu et al., Swin Transformer, 2021, Eq. 4.
    Args:
      window: tokens of the window along each axis.
      table: the window that the table is made for, at least as long on every axis.
    Returns: ids [N, N] into prod(2 table - 1) rows.
    """
    places = np.indices(window).reshape(len(window), -1)
    offsets = places[:, :, None] - places[:, None] + np.array(table)[:, None, None] - 1
    sides = tuple(2 * side - 1 for side in table)
    ids = np.ravel_multi_index(tuple(offsets), sides).astype(np.int32)
    return Buckets(ids, int(np.prod(sides)))


def log_offsets(window: tuple[int, ...]) -> np.ndarray:
    """Offsets -1..1 of a window, times 8, on a logarithmic scale.

    Source: Liu et al., Swin Transformer V2, 2022, Eq. 4; the factor 8 is the code's.
    Returns: float32 [prod(2 window - 1), axes], in [-1.06, 1.06], the order of
      `offset_buckets`.
    """
    sides = [np.linspace(-8, 8, 2 * w - 1) if w > 1 else np.zeros(1) for w in window]
    offsets = np.stack(np.meshgrid(*sides, indexing="ij"), -1).reshape(-1, len(window))
    scaled = np.sign(offsets) * np.log2(np.abs(offsets) + 1) / 3
    return scaled.astype(np.float32)


def query_frame(
    places: np.ndarray,
    grid: tuple[int, int],
    window: tuple[int, int],
    extent: tuple[float, float],
    mesh: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Mesh grid M of every window, and the unit that keypoints take in it.

    Args:
      places: int32 [windows, N, 2], (row, column) of each token.
      grid, window: (rows, columns) of tokens.
      extent: (height, width) of the image in tokens.
      mesh: one of MESHES.
    Returns: float32 [windows, N, 2], (x, y) of M; float32 [2], times keypoints (x, y).
    """
    if mesh == "shared":
        slots = np.indices(window).reshape(2, -1).T + 0.5
        centers = np.broadcast_to(slots / window, places.shape)
        unit = np.ones(2)
    elif mesh == "image":
        centers, unit = (places + 0.5) / grid, np.ones(2)
    else:
        centers, unit = (places + 0.5) / window, np.array(extent) / window
    return centers[..., ::-1].astype(np.float32), unit[::-1].astype(np.float32)


class OffsetBias(nn.Module):
    """Bias that depends on the offset alone.

    Attributes:
      num_heads: H.
      window: that the table is made for.
      continuous: a small network of the logarithmic offset, 16 sigmoid of its output
        (Swin V2), else a table (Swin V1).
    """

    num_heads: int
    window: tuple[int, ...]
    continuous: bool

    @nn.compact
    def __call__(self, window: tuple[int, ...]) -> Array:
        """Bias inside windows of this size: float32 [H, N, N]."""
        buckets = offset_buckets(tuple(window), tuple(self.window))
        if self.continuous:
            hidden = nn.Dense(512, name="hidden")(log_offsets(self.window))
            out = nn.Dense(self.num_heads, use_bias=False, name="out")(nn.relu(hidden))
            table = 16 * nn.sigmoid(out)
        else:
            table = self.param(
                "table",
                nn.initializers.truncated_normal(0.02),
                (buckets.num_buckets, self.num_heads),
            )
        return lookup(table.T, (buckets,))


class WindowKeypointBias(nn.Module):
    """f(P) of all blocks of one stage.

    Added undivided, in place of the bias by offset, as in the official Swin; it starts
    at zero.

    Source: KP-RPE, Eq. 8-11 and Sec. 5; see this file's head.

    Attributes:
      num_layers, num_heads: of the stage.
      grid, window: (rows, columns) of tokens.
      extent: (height, width) of the image in tokens of this stage.
      num_keypoints: K.
      mesh: one of MESHES.
      method, ratio: of `compute_buckets`, on the grid of the window.
    """

    num_layers: int
    num_heads: int
    grid: tuple[int, int]
    window: tuple[int, int]
    extent: tuple[float, float]
    num_keypoints: int = 5
    mesh: str = "window"
    method: str = "product"
    ratio: float = 1.9

    @nn.compact
    def __call__(self, keypoints: Array, places: Sequence[np.ndarray]) -> list[Array]:
        """Biases of a batch.

        Args:
          keypoints: float32 [B, K, 2], fractions of the image; may lie outside of it.
          places: per layer int32 [windows, N, 2], from `token_places`.
        Returns: per layer float32 [B, windows, H, N, N].
        Raises: ValueError: unknown mesh; keypoints of another shape.
        """
        check_option("WindowKeypointBias", "mesh", self.mesh, MESHES)
        if keypoints.shape[1:] != (self.num_keypoints, 2):
            raise ValueError(
                f"WindowKeypointBias: keypoints must be [B, {self.num_keypoints}, 2]; "
                f"got {keypoints.shape}; set num_keypoints."
            )
        buckets = compute_buckets(tuple(self.window), self.method, self.ratio)
        shape = (self.num_layers, self.num_heads, num_buckets(buckets))
        zeros = nn.initializers.zeros
        kernel = self.param("kernel", zeros, (2 * self.num_keypoints, *shape))
        bias = self.param("bias", zeros, shape)

        biases, tables = [], None
        for layer, place in enumerate(places):
            centers, unit = query_frame(
                place, self.grid, self.window, self.extent, self.mesh
            )
            if tables is None:
                tables = keypoint_table(kernel, keypoints * unit)  # [L, B, H, buckets]
            rows = grid_table(kernel[:, layer], bias[layer], centers.reshape(-1, 2))
            rows = rows.reshape(self.num_heads, *place.shape[:2], -1).swapaxes(0, 1)
            of_place = lookup_rows(rows, buckets)  # [windows, H, N, N]
            biases.append(of_place - lookup(tables[layer], buckets)[:, None])
        return biases


def fill_missing(keypoints: Array, present: Array | None = None) -> Array:
    """Put missing keypoints where they change least, so that the bias stays finite.

    A missing keypoint goes to the mean of those present in its image; an image without
    any keypoint has all of them in the center.

    Args:
      keypoints: [..., K, 2]; coordinates that are not finite count as missing.
      present: bool [..., K], False = missing; None = all that are finite.
    Returns: float32 [..., K, 2], finite.
    """
    known = jnp.isfinite(keypoints).all(-1)
    known = (known if present is None else known & present)[..., None]
    keypoints = jnp.where(known, keypoints.astype(jnp.float32), 0.0)
    count = known.sum(-2, keepdims=True)
    mean = keypoints.sum(-2, keepdims=True) / jnp.maximum(count, 1)
    return jnp.where(known, keypoints, jnp.where(count > 0, mean, 0.5))
