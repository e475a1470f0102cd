"""Aligned faces cut from photos at full resolution.

The host cuts a patch around each face, so that all faces have one shape on the device
whatever the sizes of their photos; the device samples the patches.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image

from kprpe_jax.alignment.framing import framing_matrix
from kprpe_jax.core.input_spec import BLACK, InputSpec, to_unit_range
from kprpe_jax.geometry.sampling import warp_affine

_BATCH = 32  # faces at once
_MARGIN = 2  # pixels around a face, for interpolation


class AlignedFace(NamedTuple):
    """An aligned face.

    Attributes:
      image: float32 [h, w, 3], RGB in [-1, 1]; black where the photo ends.
      keypoints: float32 [K, 2], (x, y) as fractions of the image.
    """

    image: np.ndarray
    keypoints: np.ndarray


class FacePatch(NamedTuple):
    """The part of a photo that an aligned face will show, and how it lies in it.

    Attributes:
      pixels: uint8 [P, P, 3], P = `patch_side(image_size)`; black outside the photo.
      matrix: float32 [2, 3], from pixels of the aligned image to pixels of the patch.
      keypoints: float32 [K, 2], fractions of the aligned image.
    """

    pixels: np.ndarray
    matrix: np.ndarray
    keypoints: np.ndarray


def align(
    photo: np.ndarray,
    keypoints: np.ndarray,
    spec: InputSpec,
    *,
    box: np.ndarray | None = None,
) -> AlignedFace:
    """Align one face of a photo as a network reads it.

    Args:
      photo: uint8 [H, W, 3], RGB.
      keypoints: [5, 2], (x, y) as fractions of the photo.
      spec: of the network: its size and its framing.
      box: [4], (left, top, right, bottom) as fractions of the photo; for a spec with
        the framing "crop".
    Raises: NoFaceError: as `framing_matrix`.
    """
    (face,) = align_patches([cut_patch(photo, keypoints, spec, box=box)], spec)
    return face


def align_patches(patches: Sequence[FacePatch], spec: InputSpec) -> list[AlignedFace]:
    """Align many faces, in batches padded to a power of two.

    Args:
      patches: from `cut_patch`, with the same spec.
      spec: as there.
    """
    faces = []
    for start in range(0, len(patches), _BATCH):
        batch = patches[start : start + _BATCH]
        size = 1 << (len(batch) - 1).bit_length()
        padded = [*batch, *[batch[-1]] * (size - len(batch))]
        pixels, matrices = (np.stack([p[i] for p in padded]) for i in (0, 1))
        images = np.asarray(_sample(pixels, matrices, size=spec.image_size))
        faces += map(AlignedFace, images, (patch.keypoints for patch in batch))
    return faces


def cut_patch(
    photo: np.ndarray,
    keypoints: np.ndarray,
    spec: InputSpec,
    *,
    box: np.ndarray | None = None,
) -> FacePatch:
    """Cut the square around a face that its aligned image will show.

    A face of few pixels is cut as it is. One of many is shrunk without aliasing, to
    somewhat more than the aligned image has.

    Args, raises: as `align`.
    """
    matrix = framing_matrix(keypoints, photo.shape[:2], spec, box)
    return cut_square(photo, keypoints, matrix, spec.image_size)


def cut_square(
    photo: np.ndarray, keypoints: np.ndarray, matrix: np.ndarray, size: tuple[int, int]
) -> FacePatch:
    """Cut the square that an image of this size will show.

    Args:
      photo, keypoints: as `align`.
      matrix: float64 [2, 3], from pixels of the photo to pixels of the image.
      size: (height, width) of the image.
    """
    inverse = np.linalg.inv(np.concatenate([matrix, [[0, 0, 1]]]))[:2]
    frame = np.array([[0, 0], [size[1], 0], [0, size[0]], size[::-1]])
    corners = frame @ inverse[:, :2].T + inverse[:, 2]
    low, high = corners.min(0) - _MARGIN, corners.max(0) + _MARGIN
    side = patch_side(size)
    # Keypoints far apart ask for much that lies outside the photo.
    longest = min(max(high - low), 4 * max(photo.shape[:2]))
    extent = max(int(np.ceil(longest)), side)
    origin = np.round((low + high) / 2 - extent / 2).astype(int)
    patch = Image.fromarray(photo).crop((*origin, *(origin + extent)))
    if extent > side:
        patch = patch.resize((side, side), Image.Resampling.BILINEAR)
    inverse[:, 2] -= origin
    pixels = keypoints.astype(np.float64) * photo.shape[1::-1]
    aligned = pixels @ matrix[:, :2].T + matrix[:, 2]
    return FacePatch(
        np.asarray(patch),
        (inverse * (side / extent)).astype(np.float32),
        (aligned / np.array(size[::-1])).astype(np.float32),
    )


def patch_side(size: tuple[int, int]) -> int:
    """Side of the patches of an aligned size: about twice its longer one."""
    return 2 * max(size) + 32


@partial(jax.jit, static_argnames="size")
def _sample(pixels: jax.Array, matrices: jax.Array, *, size: tuple[int, int]):
    images = to_unit_range(pixels)
    return warp_affine(images, matrices, out_size=size, outside=BLACK)
