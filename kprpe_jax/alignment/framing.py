"""What of a photo a network sees: the framings of an input contract."""

import numpy as np

from kprpe_jax.core.input_spec import InputSpec
from kprpe_jax.geometry.point_fits import similarity_matrix
from kprpe_jax.geometry.template import face_template

_LEAST_SPREAD = 0.5  # pixels, standard deviation of a face's keypoints
# Least spread of aligned keypoints over the template's. Faces have 0.8 to 1, in profile
# too; the template mirrored, which no rotation brings back, has 0.23.
_LEAST_FIT = 0.3


class NoFaceError(ValueError):
    """A photo, or a face that was detected in it, gives no aligned face."""


def framing_matrix(
    keypoints: np.ndarray,
    photo_size: tuple[int, int],
    spec: InputSpec,
    box: np.ndarray | None = None,
) -> np.ndarray:
    """Similarity from a photo to the image that a network reads.

    Args:
      keypoints: [K, 2], (x, y) as fractions of the photo, the five points first.
      photo_size: (height, width) of the photo in pixels.
      spec: of the network: its size, and its framing. "template" and "chip" bring the
        keypoints to a template, "crop" the longer side of the box to the image's
        shorter side, "none" the whole photo into the image.
      box: [4], (left, top, right, bottom) as fractions of the photo; for "crop".
    Returns: float64 [2, 3], from pixels to pixels.
    Raises: NoFaceError: an empty box; for a template, keypoints that are not finite,
      lie in one place or outside the photo, or that a similarity flattens.
    """
    photo = np.array(photo_size[::-1], np.float64)
    if spec.is_aligned:
        template = face_template(spec.image_size, spec.framing)
        return template_matrix(keypoints[:5] * photo, photo, template)
    if spec.framing == "none":
        corners = np.array([[0, 0], photo])
        scale = (np.array(spec.image_size[::-1]) / photo).min()
    elif box is None:
        raise ValueError(
            "the network reads crops by the box of a detector; got keypoints alone;"
            " give the photo to --detector"
        )
    else:
        corners = np.asarray(box, np.float64).reshape(2, 2) * photo
        side = max(corners[1] - corners[0])
        if not np.isfinite(corners).all() or side < 1:
            raise NoFaceError("the box of its face is empty")
        scale = min(spec.image_size) / side
    offset = np.array(spec.image_size[::-1]) / 2 - scale * corners.mean(0)
    return np.concatenate([scale * np.eye(2), offset[:, None]], axis=1)


def template_matrix(
    pixels: np.ndarray, photo: np.ndarray, template: np.ndarray
) -> np.ndarray:
    """Similarity from keypoints to a template.

    Args:
      pixels: [5, 2], (x, y) in pixels of the photo.
      photo: [2], width and height of it.
      template: [5, 2], where they belong, in pixels.
    Returns: float64 [2, 3].
    Raises: NoFaceError: as `framing_matrix`.
    """
    if pixels.shape != (5, 2):
        raise ValueError(
            f"align: keypoints must be [5, 2] for the template; got {pixels.shape}"
        )
    if not np.isfinite(pixels).all():
        raise NoFaceError("the keypoints of its face are not finite")
    spread = np.sqrt(np.square(pixels - pixels.mean(0)).sum(-1).mean())
    if spread < _LEAST_SPREAD:
        raise NoFaceError("the keypoints of its face lie within one pixel")
    if not ((pixels >= 0) & (pixels <= photo)).all(-1).any():
        raise NoFaceError("the keypoints of its face lie outside the photo")
    template = template.astype(np.float64)
    matrix = similarity_matrix(pixels.astype(np.float64), template)
    wanted = np.sqrt(np.square(template - template.mean(0)).sum(-1).mean())
    if np.hypot(*matrix[:, 0]) * spread < _LEAST_FIT * wanted:
        raise NoFaceError("the keypoints of its face are not arranged as in a face")
    return matrix
