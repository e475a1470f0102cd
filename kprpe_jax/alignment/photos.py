"""Photos of any sizes through networks compiled for few.

Photos are fitted into square canvases of a few sizes, so that a folder of them compiles
once per canvas. Faces are then cut from the photos at full resolution.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from kprpe_jax.alignment.align import Aligned, align_faces
from kprpe_jax.detection.detections import Faces, find_faces, with_close_ups
from kprpe_jax.detection.differentiable_aligner import DifferentiableAligner
from kprpe_jax.detection.retinaface import RetinaFace
from kprpe_jax.geometry.template import face_template

CANVASES = (128, 256, 512, 1024)  # sides, pixels
# A detector sees parts of a face that is larger than its anchors, and whole faces in a
# picture of a quarter of the size.
_CLOSE_UP = 200  # pixels, side of a box
_QUARTER = 4
_MAX_QUEUED = 1 << 26  # pixels of photos that wait for their batch
_PATCH_MARGIN = 2  # pixels around a face, for interpolation


class Finder(NamedTuple):
    """A network that finds faces.

    Attributes:
      find: float32 [B, S, S, 3] in [-1, 1] -> Faces.
      canvases: sides S, ascending; a photo goes into the smallest that holds it and is
        shrunk to fit the last one.
      enlarge: whether small photos are enlarged to their canvas.
    """

    find: Callable[[jax.Array], Faces]
    canvases: tuple[int, ...]
    enlarge: bool


class FoundFaces(NamedTuple):
    """The faces of one photo.

    Attributes:
      name: of the photo.
      photo: uint8 [H, W, 3].
      keypoints: float32 [F, 5, 2], (x, y) as fractions of the photo, largest face
        first; F = 0 where there is none.
      scores: float32 [F], in 0..1.
    """

    name: str
    photo: np.ndarray
    keypoints: np.ndarray
    scores: np.ndarray


def detector_finder(
    model: RetinaFace,
    variables: Any,
    *,
    max_faces: int,
    min_score: float,
    max_side: int = CANVASES[-1],
) -> Finder:
    """Find all faces of photos, small ones and those that fill the photo.

    Args:
      model, variables: the detector.
      max_faces: of a photo, at each of two sizes.
      min_score: faces must score more.
      max_side: larger photos are shrunk to it. Faces of less than 10 pixels after that
        are not found.
    Raises: ValueError: a side below 32.
    """
    if max_side < 32:
        raise ValueError(
            f"detector_finder: max_side must be at least 32 pixels; got {max_side}; "
            "1024 is usual"
        )

    @jax.jit
    def find(images: jax.Array) -> Faces:
        def at_size(images: jax.Array) -> Faces:
            heads = model.apply(variables, images)
            return find_faces(
                heads, images.shape[1:3], max_faces=max_faces, min_score=min_score
            )

        faces = at_size(images)
        batch, side, _, channels = images.shape
        if side <= _CLOSE_UP:
            return faces
        shape = batch, side // _QUARTER, side // _QUARTER, channels
        quarter = jax.image.resize(images, shape, "linear", antialias=True)
        return with_close_ups(faces, at_size(quarter), _CLOSE_UP / side)

    sides = *(side for side in CANVASES if side < max_side), max_side
    return Finder(find, sides, enlarge=False)


def aligner_finder(
    model: DifferentiableAligner, variables: Any, *, min_score: float
) -> Finder:
    """Find the one face that fills each photo.

    Args:
      model, variables: the differentiable aligner.
      min_score: photos that score less hold no face.
    """

    @jax.jit
    def find(images: jax.Array) -> Faces:
        face, _ = model.apply(variables, images, method="find_face")
        mask = face.score > min_score
        return Faces(
            *(x[:, None] for x in (face.box, face.keypoints, face.score, mask))
        )

    return Finder(find, (model.input_size,), enlarge=True)


def find_in_photos(
    finder: Finder,
    photos: Iterable[tuple[str, np.ndarray]],
    *,
    batch_size: int,
) -> Iterator[FoundFaces]:
    """Find the faces of photos, in batches of photos with the same canvas.

    Args:
      finder: the network.
      photos: names and uint8 [H, W, 3], RGB, any sizes.
      batch_size: photos at once.
    Returns: one result per photo, not in their order.
    """
    queues: dict[int, list[tuple[str, np.ndarray]]] = {s: [] for s in finder.canvases}

    def flush(side: int) -> Iterator[FoundFaces]:
        rows, queues[side] = queues[side], []
        if rows:
            yield from _find_batch(finder, rows, side, batch_size)

    for name, photo in photos:
        longest = max(photo.shape[:2])
        side = next((s for s in finder.canvases if s >= longest), finder.canvases[-1])
        queues[side].append((name, photo))
        if len(queues[side]) == batch_size:
            yield from flush(side)
        waiting = sum(p[..., 0].size for queue in queues.values() for _, p in queue)
        if waiting > _MAX_QUEUED:
            for side in queues:
                yield from flush(side)
    for side in queues:
        yield from flush(side)


def _find_batch(
    finder: Finder, rows: list[tuple[str, np.ndarray]], side: int, batch_size: int
) -> Iterator[FoundFaces]:
    canvases = np.full((batch_size, side, side, 3), -1, np.float32)
    frames = []
    for canvas, (_, photo) in zip(canvases, rows, strict=False):
        frames.append(_place(photo, canvas, enlarge=finder.enlarge))
    faces = jax.device_get(finder.find(jnp.asarray(canvases)))
    for i, ((name, photo), (corner, size)) in enumerate(zip(rows, frames, strict=True)):
        left, top, right, bottom = faces.boxes[i].T
        order = np.argsort(-(right - left) * (bottom - top), kind="stable")
        order = order[faces.mask[i][order]]
        points = (faces.keypoints[i][order] * side - corner) / size
        yield FoundFaces(name, photo, points.astype(np.float32), faces.scores[i][order])


def _place(
    photo: np.ndarray, canvas: np.ndarray, *, enlarge: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a photo into the middle of a canvas; give its (x, y) corner and size."""
    side, size = len(canvas), np.array(photo.shape[1::-1])
    scale = side / size.max()
    if scale < 1 or enlarge:
        size = np.maximum(np.round(size * scale).astype(int), 1)
        shrunk = Image.fromarray(photo).resize(tuple(size), Image.Resampling.BILINEAR)
        photo = np.asarray(shrunk)
    left, top = corner = (side - size) // 2
    canvas[top : top + size[1], left : left + size[0]] = photo / np.float32(127.5) - 1
    return corner, size


def cut_patch(
    photo: np.ndarray, keypoints: np.ndarray, *, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Cut the square around a face that its aligned image will show.

    A face of few pixels is cut as it is. One of many is shrunk without aliasing, to
    somewhat more than the aligned image has.

    Args:
      photo: uint8 [H, W, 3].
      keypoints: [5, 2], fractions of the photo.
      size: (height, width) of the aligned image.
    Returns: uint8 [P, P, 3], P = `patch_side(size)`, black outside of the photo; the
      keypoints as fractions of it.
    """
    side = patch_side(size)
    pixels = keypoints.astype(np.float64) * photo.shape[1::-1]
    corners = _frame_corners(pixels, size)
    low, high = corners.min(0) - _PATCH_MARGIN, corners.max(0) + _PATCH_MARGIN
    # Points that a similarity flattens ask for the whole plane.
    longest = min(max(high - low), 4 * max(photo.shape[:2]))
    extent = max(int(np.ceil(longest)), side)
    origin = np.round((low + high) / 2 - extent / 2).astype(int)
    box = (*origin, *(origin + extent))
    patch = Image.fromarray(photo).crop(box)
    if extent > side:
        patch = patch.resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(patch), ((pixels - origin) / extent).astype(np.float32)


def patch_side(size: tuple[int, int]) -> int:
    """Side of the patches of an aligned size: about twice its longer one."""
    return 2 * max(size) + 32


def _frame_corners(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Where in the photo the aligned image's corners lie, float64 [4, 2]."""
    template = face_template(size).astype(np.float64)
    # `fit_similarity` in complex numbers, the photo as a function of the aligned image.
    source, target = (p[:, 0] + 1j * p[:, 1] for p in (pixels, template))
    means = source.mean(), target.mean()
    source, target = source - means[0], target - means[1]
    spread = np.square(np.abs(source)).sum()
    turn = (source.conj() * target).sum() / spread if spread > 0 else 1.0
    corners = np.array([0, size[1], 1j * size[0], size[1] + 1j * size[0]])
    turn = turn if np.abs(turn) > 1e-6 else 1e-6
    places = (corners - means[1]) / turn + means[0]
    return np.stack([places.real, places.imag], axis=-1)


@partial(jax.jit, static_argnames="size")
def align_patches(
    patches: jax.Array, keypoints: jax.Array, *, size: tuple[int, int]
) -> Aligned:
    """Align patches: `align_faces` on bytes.

    Args:
      patches: uint8 [B, P, P, 3], from `cut_patch`.
      keypoints: float32 [B, 5, 2], fractions of the patches.
      size: (height, width).
    """
    return align_faces(patches.astype(jnp.float32) / 127.5 - 1, keypoints, size=size)


def align_found(
    found: FoundFaces, *, size: tuple[int, int], faces: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Align some faces of a photo.

    Args:
      found: the photo and its faces.
      size: (height, width) of the results.
      faces: which ones.
    Returns: uint8 [N, h, w, 3]; their keypoints float32 [N, 5, 2], fractions of them.
    """
    if not len(faces):
        return np.zeros((0, *size, 3), np.uint8), np.zeros((0, 5, 2), np.float32)
    images, points = [], []
    for index in faces:  # one at a time: one compiled shape, whatever their number
        patch, moved = cut_patch(found.photo, found.keypoints[index], size=size)
        aligned = align_patches(patch[None], moved[None], size=size)
        images.append(np.asarray(aligned.images[0]))
        points.append(np.asarray(aligned.keypoints[0]))
    levels = np.clip(np.round((np.stack(images) + 1) * 127.5), 0, 255)
    return levels.astype(np.uint8), np.stack(points)
