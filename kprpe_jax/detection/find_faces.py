"""Find the faces of photos, question what was detected, and turn photos that lie.

A detector gives five points for noise, too, and for a face that lies on its side or
stands on its head, whose points are those of no face. What is detected is therefore
looked at again: the face is aligned, and the detector must find it there, upright and
at the same place. Photos in which nothing passes are tried in three further turns.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from kprpe_jax.alignment.framing import NoFaceError, template_matrix
from kprpe_jax.alignment.photos import FacePatch, align_patches, cut_square
from kprpe_jax.core.input_spec import InputSpec
from kprpe_jax.detection.detections import Detections
from kprpe_jax.detection.detector import Detector
from kprpe_jax.detection.photos import PhotoDetections, detect_photos
from kprpe_jax.geometry.template import ARCFACE_112

NO_FACE = "no face was detected"
DOUBTFUL = (
    "what was detected is not a whole face: a second look at it disagrees with the "
    "first, also with the photo turned"
)
# Largest RMS distance to the template after alignment, in distances of its eyes. In
# profile, labeled by hand, faces have up to 0.38.
_MOST_RESIDUAL = 0.45
_MOST_MOVED = 0.2  # mean distance between both looks' keypoints, in the same unit
# The second look: of 96 pixels a side, or with another zoom, it takes some masked faces
# for none.
_SIDE = 112  # pixels
_ZOOM = 0.7  # of the 112 x 112 template
_CENTER = (56, 68)  # in pixels of that template
_EYES = float(np.linalg.norm(ARCFACE_112[1] - ARCFACE_112[0]))
_ALIKE = 0.8  # side of another face over that of the chosen one, to be noted


def find_faces(
    detector: Detector,
    photos: Iterable[tuple[str, np.ndarray]],
    *,
    batch_size: int,
    order: str = "center",
    count: int | None = 1,
) -> Iterator[PhotoDetections]:
    """Find the first faces of photos, and leave out what is none.

    A face passes if its keypoints lie as a face's do and, for a detector that takes a
    second look, if that finds it upright in the aligned image, with the mean keypoint
    no more than 0.2 eye distances from the first look's. Where no face passes, the
    photo is tried in the three other turns, and the one with the best score is kept.

    Args:
      detector: the network.
      photos, batch_size, order: as `detect_photos`.
      count: how many faces of a photo are asked for, the first in the order; None =
        all. If the first does not pass, the next does not take its place.
    Returns: one result per photo, in their order: the photo as it was turned, the faces
      that pass, in fractions of it, and why others do not.
    """
    photos = iter(photos)
    compiled: dict[int, int] = {}

    def look(photos: Iterable[tuple[str, np.ndarray]]) -> Iterator[PhotoDetections]:
        options = dict(batch_size=batch_size, order=order, compiled=compiled)
        return detect_photos(detector, photos, **options)

    found = look(photos)
    while chunk := list(itertools.islice(found, batch_size)):
        chunk = _question(detector, chunk, count, compiled)
        lost = [i for i, result in enumerate(chunk) if not len(result.scores)]
        turned = [
            (str(3 * n + turns - 1), np.rot90(chunk[i].photo, turns))
            for n, i in enumerate(lost)
            for turns in (1, 2, 3)
        ]
        best: dict[int, PhotoDetections] = {}
        tried = look(turned)
        while group := list(itertools.islice(tried, batch_size)):
            for result in _question(detector, group, count, compiled):
                n, turns = divmod(int(result.name), 3)
                score = result.scores.max(initial=0)
                if score > (best[n].scores.max() if n in best else 0):
                    best[n] = result._replace(turns=turns + 1)
        for n, result in best.items():
            chunk[lost[n]] = result._replace(name=chunk[lost[n]].name)
        yield from chunk


def upright_points(points: np.ndarray, turns: int) -> np.ndarray:
    """Points of a turned photo as fractions of the photo before.

    Args:
      points: [..., 2], (x, y) as fractions of the turned photo.
      turns: quarter turns of `np.rot90`.
    """
    for _ in range(turns % 4):
        points = np.stack([1 - points[..., 1], points[..., 0]], axis=-1)
    return points


def upright_boxes(boxes: np.ndarray, turns: int) -> np.ndarray:
    """Boxes [F, 4] of a turned photo as fractions of the photo before."""
    corners = upright_points(boxes.reshape(-1, 2, 2), turns)
    return np.concatenate([corners.min(1), corners.max(1)], axis=-1)


def _question(
    detector: Detector,
    chunk: Sequence[PhotoDetections],
    count: int | None,
    compiled: dict[int, int],
) -> list[PhotoDetections]:
    """Keep the faces that pass of the first `count` of each photo."""
    patches: list[FacePatch] = []
    rows: list[tuple[int, int]] = []  # photo and face of each patch
    reasons: list[list[str]] = [[] for _ in chunk]
    for i, found in enumerate(chunk):
        if not len(found.scores):
            reasons[i].append(NO_FACE)
        for face, keypoints in enumerate(found.keypoints[:count]):
            try:
                patches.append(_cut(found.photo, keypoints))
                rows.append((i, face))
            except NoFaceError as error:
                reasons[i].append(str(error))
    passed = np.ones(len(rows), bool)
    if detector.second_look is not None and rows:
        passed = _look_again(detector.second_look, patches, compiled)
    kept: list[list[int]] = [[] for _ in chunk]
    for (i, face), is_face in zip(rows, passed, strict=True):
        kept[i].append(face) if is_face else reasons[i].append(DOUBTFUL)
    return [
        found._replace(
            boxes=found.boxes[index],
            keypoints=found.keypoints[index],
            scores=found.scores[index],
            poses=None if found.poses is None else found.poses[index],
            reasons=why,
            notes=_notes(found, count, detector.max_faces) if index else [],
        )
        for found, index, why in zip(chunk, kept, reasons, strict=True)
    ]


def _cut(photo: np.ndarray, keypoints: np.ndarray) -> FacePatch:
    """The part of a photo that a second look sees, if the keypoints are a face's."""
    size = np.array(photo.shape[1::-1], np.float64)
    template = _ZOOM * (ARCFACE_112 - np.float32(_CENTER)) + _SIDE / 2
    five = keypoints[:5] * size
    matrix = template_matrix(five, size, template)
    aligned = five @ matrix[:, :2].T + matrix[:, 2]
    residual = np.sqrt(np.square(aligned - template).sum(-1).mean())
    if residual > _MOST_RESIDUAL * _ZOOM * _EYES:
        raise NoFaceError("the keypoints of its face are not arranged as in a face")
    return cut_square(photo, keypoints, matrix, (_SIDE, _SIDE))


def _look_again(
    look: Callable[[jax.Array], Detections],
    patches: Sequence[FacePatch],
    compiled: dict[int, int],
) -> np.ndarray:
    """Which aligned faces are found again: bool [F].

    Each is seen in four turns. A face on its head is found with more certainty when it
    is turned, and noise nowhere or elsewhere.
    """
    faces = align_patches(patches, InputSpec((_SIDE, _SIDE)))
    size = max(1 << (len(faces) - 1).bit_length(), compiled.get(_SIDE, 1))
    compiled[_SIDE] = size
    images = np.stack([face.image for face in faces])
    images = np.pad(images, [(0, size - len(faces)), (0, 0), (0, 0), (0, 0)])
    seen = np.concatenate([np.rot90(images, turns, (1, 2)) for turns in range(4)])
    found = jax.device_get(look(jnp.asarray(seen)))
    scores = np.where(found.mask, found.scores, 0).max(1, initial=0).reshape(4, size)
    count = found.keypoints.shape[-2]
    first = np.stack([face.keypoints[:count] for face in faces])[:, None]
    moved = np.linalg.norm(found.keypoints[: len(faces)] - first, axis=-1).mean(-1)
    moved = np.where(found.mask[: len(faces)], moved, np.inf).min(1, initial=np.inf)
    upright = scores[0] > scores[1:].max(0)
    return upright[: len(faces)] & (moved * _SIDE <= _MOST_MOVED * _ZOOM * _EYES)


def _notes(found: PhotoDetections, count: int | None, max_faces: int) -> list[str]:
    """Notes of faces that are not asked for, and of those that may not be found."""
    if count is None:
        if not 0 < max_faces <= len(found.scores):
            return []
        return [f"a crowd: {len(found.scores)} faces were detected, others may not be"]
    boxes = found.boxes * np.tile(found.photo.shape[1::-1], 2)
    sides = np.sqrt(np.maximum(np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1), 0))
    alike = int((sides[1:] >= _ALIKE * sides[0]).sum())
    if not alike:
        return []
    return [f"{alike} further face{'s' if alike > 1 else ''} of similar size"]
