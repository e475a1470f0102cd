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
    basis: tps.GridBasis,
    *,
    padding: str = "zeros",
) -> jax.Array:
    """Warp images so that their keypoints lie on the template.

    Args:
      images: [B, H, W, C].
      keypoints: [B, K, 2], (x, y) as fractions of the image; repeated ones, or ones on
        a line, flatten the image there but stay finite.
      spline: from `template_spline`.
      basis: from `grid_basis` of the spline at the output's size [h, w].
      padding: of `grid_sample`.
    Returns: float32 [B, h, w, C], differentiable in images and keypoints.
    Raises: ValueError: keypoints of another number; a basis with aligned corners.
    """
    if basis.align_corners:
        raise ValueError(
            "full_align: basis must be made with align_corners=False, keypoints being "
            "fractions from edge to edge; got True"
        )
    if keypoints.shape[1:] != spline.control.shape:
        raise ValueError(
            f"full_align: keypoints must be [B, {len(spline.control)}, 2] for this "
            f"template; got {keypoints.shape}; give one for each of its points"
        )
    displacements = 2 * keypoints - 1 - spline.control.astype(np.float32)
    return grid_sample(images, tps.warp_grid(basis, displacements), padding=padding)
