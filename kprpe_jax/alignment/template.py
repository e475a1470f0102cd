"""Templates of any number of landmarks: their places in an aligned face."""

import os

import numpy as np

from kprpe_jax.core.npz import read_npz

_FRONTAL = 0.1  # largest shift of the nose, in distances of the eyes


def frontal_template(landmarks: np.ndarray, points: tuple[int, ...]) -> np.ndarray:
    """Average the landmarks of the frontal faces.

    Source: Balanced Alignment, Secs. 3.1 and 5.3, where faces are frontal whose yaw is
      known to be within 15 degrees. Here those are, whose nose lies midway between the
      eyes, to a tenth of their distance.
    Args:
      landmarks: [N, S, 2], of aligned faces, as fractions of the image; NaN = missing.
      points: which of them are the left eye, the right eye and the nose, first.
    Returns: float32 [S, 2]; of a landmark that no frontal face shows, and where none
      is frontal, the mean over all faces.
    Raises: ValueError: another shape, no face, a landmark that no face shows.
    """
    faces = np.asarray(landmarks, np.float64)
    if faces.ndim != 3 or faces.shape[-1] != 2 or not len(faces):
        raise ValueError(
            "frontal_template: landmarks must be [N, S, 2] of at least one face; got "
            f"{faces.shape}; give those of the training images"
        )
    left, right, nose = (faces[:, i] for i in points[:3])
    across = right - left
    length = np.maximum(np.square(across).sum(-1), 1e-12)
    shift = ((nose - (left + right) / 2) * across).sum(-1) / length
    known = ~np.isnan(faces).any(-1)
    if not known.any(0).all():
        raise ValueError(
            "frontal_template: every landmark must be known in some face; got none of "
            f"landmark {int(np.argmin(known.any(0)))}; leave it out of the table"
        )
    frontal = np.abs(shift) < _FRONTAL  # not where NaN
    chosen = known & frontal[:, None]
    chosen = np.where(chosen.any(0), chosen, known)[..., None]
    total = np.where(chosen, faces, 0).sum(0)
    return (total / chosen.sum(0)).astype(np.float32)


def read_template(path: str | os.PathLike, count: int) -> np.ndarray:
    """Read the template file of a run.

    Args:
      path: .npz archive with `template` [S, 2], fractions of the image.
      count: S.
    Returns: float32 [S, 2].
    Raises: ValueError: no such file or array, another number of points, or values that
      are not finite.
    """
    try:
        template = read_npz(path)["template"].astype(np.float32)
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"read_template: {path} must hold an array 'template'; got "
            f"{str(error).splitlines()[0]}; give the template.npz of a run"
        ) from error
    if template.shape != (count, 2) or not np.isfinite(template).all():
        raise ValueError(
            f"read_template: the template in {path} must be finite and [{count}, 2] as "
            f"the data's landmarks are; got {template.shape}; give one of the same "
            "landmarks"
        )
    return template
