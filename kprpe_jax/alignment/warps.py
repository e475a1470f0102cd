"""Warps from networks or landmarks: sampling grids, and points both ways.

All coordinates are (x, y) in [-1, 1] between the edges of an image, of its input or its
output; a warp is a function from output to input, as grids are.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kprpe_jax.geometry import affine, grids
from kprpe_jax.geometry import thin_plate_spline as tps
from kprpe_jax.geometry.point_fits import fit_affine
from kprpe_jax.geometry.sampling import grid_sample

Size = tuple[int, int]
LEARNED = ("affine", "projective", "tps")  # by a localization network
GIVEN = ("none", "affine2d", "full_align")  # by landmarks, or by nothing


class Warp(NamedTuple):
    """Warps of a batch of images.

    Attributes:
      grid: (height, width) of the output -> float32 [B, height, width, 2].
      to_input: points of the output [B, K, 2] -> where they lie in the input.
      to_output: points of the input [B, K, 2] -> where they come to lie.
    """

    grid: Callable[[Size], jax.Array]
    to_input: Callable[[jax.Array], jax.Array]
    to_output: Callable[[jax.Array], jax.Array]


def affine_warp(theta: jax.Array) -> Warp:
    """Affine maps; where one has no inverse, `to_output` gives the center.

    Args:
      theta: [B, 2, 3], from output to input.
    """
    return Warp(
        lambda size: grids.affine_grid(theta, size),
        functools.partial(affine.apply, theta),
        lambda points: affine.apply(affine.invert(theta), points),
    )


def projective_warp(parameters: jax.Array) -> Warp:
    """Projective maps.

    Args:
      parameters: [B, 8], from output to input, as `grids.apply_projective` takes them.
    """
    return Warp(
        lambda size: grids.projective_grid(parameters, size),
        functools.partial(grids.apply_projective, parameters),
        lambda points: grids.apply_projective(
            grids.invert_projective(parameters), points
        ),
    )


def spline_warp(spline: tps.Spline, displacements: jax.Array) -> Warp:
    """Thin-plate splines.

    Args:
      spline: its control points lie in the output.
      displacements: [B, M, 2], of the control points.
    """
    return Warp(
        lambda size: tps.warp_grid(tps.grid_basis(spline, size), displacements),
        functools.partial(tps.warp_points, spline, displacements),
        functools.partial(tps.invert_warp, spline, displacements),
    )


def identity_warp(batch: int) -> Warp:
    """The identity."""
    theta = jnp.tile(jnp.eye(2, 3), (batch, 1, 1))
    return affine_warp(theta)


def num_parameters(kind: str, control: Size) -> int:
    """Count the outputs of a localization network for a kind of LEARNED.

    Args:
      kind: of LEARNED.
      control: (rows, columns) of the grid of control points, for "tps".
    Raises: ValueError: another kind.
    """
    if kind not in LEARNED:
        raise ValueError(
            f"num_parameters: kind must be one of {', '.join(LEARNED)}; got {kind!r}; "
            "choose one"
        )
    return {"affine": 6, "projective": 8, "tps": 2 * control[0] * control[1]}[kind]


def learned_warp(outputs: jax.Array, kind: str, control: Size) -> Warp:
    """Make the warp of a localization network's outputs; zeros are the identity.

    Source: Balanced Alignment, Secs. 3.1 and 4.1 (STN-Proj, STN-TPS-2, STN-TPS-8).
    Args:
      outputs: [B, P], P = `num_parameters`.
      kind, control: as there.
    """
    outputs = outputs.astype(jnp.float32)
    if kind == "affine":
        return affine_warp(jnp.eye(2, 3) + outputs.reshape(-1, 2, 3))
    if kind == "projective":
        return projective_warp(grids.IDENTITY_PROJECTIVE + outputs)
    return spline_warp(_grid_spline(*control), outputs.reshape(outputs.shape[0], -1, 2))


def landmark_warp(
    kind: str, landmarks: jax.Array, template: np.ndarray, points: tuple[int, ...]
) -> Warp:
    """Make the warp that brings landmarks to a template.

    Source: Balanced Alignment, Sec. 3.1: Affine2D (least squares of five points) and
      FullAlign (every landmark exactly to the template).
    Args:
      kind: of GIVEN.
      landmarks: [B, S, 2], in the input.
      template: [S, 2], known when the program is built; unused by "none".
      points: those that "affine2d" fits.
    """
    if kind == "none":
        return identity_warp(len(landmarks))
    landmarks = landmarks.astype(jnp.float32)
    if kind == "affine2d":
        index = np.array(points)
        target = jnp.broadcast_to(template[index], (len(landmarks), len(index), 2))
        return affine_warp(affine.invert(fit_affine(landmarks[:, index], target)))
    spline = _template_spline(tuple(map(tuple, np.asarray(template).tolist())))
    return spline_warp(spline, landmarks - spline.control.astype(np.float32))


def warp_map(warp: Warp, maps: jax.Array, *, outside: float = 0.0) -> jax.Array:
    """Warp images or feature maps; the size and type stay.

    Args:
      warp: of the batch.
      maps: [B, h, w, C].
      outside: value beyond the edges; BLACK for images.
    Returns: [B, h, w, C].
    """
    grid = warp.grid(maps.shape[1:3])
    sampled = grid_sample(maps.astype(jnp.float32) - outside, grid) + outside
    return sampled.astype(maps.dtype)


def carry_keypoints(warp: Warp, keypoints: jax.Array) -> jax.Array:
    """Map keypoints [B, K, 2], fractions, from the images to the warped images."""
    return (warp.to_output(2 * keypoints - 1) + 1) / 2


@functools.cache
def _grid_spline(rows: int, columns: int) -> tps.Spline:
    return tps.make_spline(tps.control_grid(rows, columns))


@functools.cache
def _template_spline(template: tuple[tuple[float, float], ...]) -> tps.Spline:
    return tps.make_spline(np.array(template))
