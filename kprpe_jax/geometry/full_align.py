"""FullAlign: every landmark exactly to its place in a template.

Source: Balanced Alignment, Sec. 3.1, method 5.
"""

import jax
import numpy as np

from kprpe_jax.geometry import thin_plate_spline as tps
from kprpe_jax.geometry.sampling import grid_sample


def template_spline(template: np.ndarray) -> tps.Spline:
    """Spline whose control points are the template's; make it once, outside the step.

    Args:
      template: [K, 2], (x, y) as fractions of the aligned image, such as the mean
        landmarks of frontal faces.
    Raises: ValueError: points that are repeated or all on one line.
    """
    return tps.make_spline(2 * np.asarray(template, np.float64) - 1)


def full_align(
    images: jax.Array,
    keypoints: jax.Array,
    spline: tps.Spline,
    basis: jax.Array,
    *,
    padding: str = "zeros",
) -> jax.Array:
    """Warp images so that their keypoints lie on the template.

    Args:
      images: [B, H, W, C].
      keypoints: [B, K, 2], (x, y) as fractions of the image; repeated ones, or ones on
        a line, flatten the image there but stay finite.
      spline: from `template_spline`.
      basis: float32 [h, w, K], from `grid_basis` of the spline at the output's size.
      padding: of `grid_sample`.
    Returns: float32 [B, h, w, C], differentiable in images and keypoints.
    """
    displacements = 2 * keypoints - 1 - spline.control.astype(np.float32)
    return grid_sample(images, tps.warp_grid(basis, displacements), padding=padding)
