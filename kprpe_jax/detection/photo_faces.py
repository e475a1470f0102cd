"""The aligned faces of photos: detected, chosen and cut, or aligned already."""

import collections
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from kprpe_jax.alignment.framing import NoFaceError
from kprpe_jax.alignment.photos import AlignedFace, align, align_patches, cut_patch
from kprpe_jax.core.input_spec import InputSpec, to_unit_range
from kprpe_jax.detection.detector import Detector
from kprpe_jax.detection.find_faces import (
    find_faces,
    upright_boxes,
    upright_points,
)
from kprpe_jax.detection.photos import PhotoDetections
from kprpe_jax.geometry.template import face_template

FACES = ("center", "largest", "all")


class PhotoFaces(NamedTuple):
    """The aligned faces of one photo.

    Attributes:
      name: of the photo.
      photo: uint8 [H, W, 3]; None where it cannot be read.
      faces: F aligned faces, the one at the photo's center first, or the
        largest.
      boxes: float32 [F, 4], (left, top, right, bottom) as fractions of the photo.
      keypoints: float32 [F, K, 2], (x, y) as fractions of the photo, the five first.
      scores: float32 [F], the detector's, in 0..1.
      reasons: why the photo, or a face that was chosen, gives no aligned face.
      notes: that the photo was turned, that others are about as large.
      poses: float32 [F, 3], yaw, pitch and roll in degrees (`face_mesh.head_pose`), of
        the photo as it was turned; None where the detector sees none.
    """

    name: str
    photo: np.ndarray | None
    faces: list[AlignedFace]
    boxes: np.ndarray
    keypoints: np.ndarray
    scores: np.ndarray
    reasons: list[str]
    notes: Sequence[str] = ()
    poses: np.ndarray | None = None


def read_faces(
    photos: Iterable[tuple[str, np.ndarray | str]],
    spec: InputSpec,
    detector: Detector | None = None,
    *,
    faces: str = "center",
    batch_size: int = 8,
) -> Iterator[PhotoFaces]:
    """Detect and align the faces of photos, in batches.

    Args:
      photos: names and photos, or why one cannot be read, as `read_photos` gives them.
      spec: of the network that is to read the faces.
      detector: None = the photos are aligned faces of the spec's size, or of its height
        and more columns on both sides; with the framing "none", photos of any size.
      faces: of a photo: the one at its "center", as `detect_photos` orders them, the
        "largest", or "all", those at the center first.
      batch_size: photos at once, at most.
    Returns: one result per photo, in their order, with at least one face or one reason.
    Raises: ValueError: an unknown choice of faces; a network that reads keypoints,
      photos that are not aligned to the template, and no detector.
    """
    if faces not in FACES:
        raise ValueError(f"faces must be one of {', '.join(FACES)}; got {faces!r}")
    if spec.framing == "none" and faces == "all":
        raise ValueError(
            "--faces all: --align none shows the network the whole photo, whatever the "
            "face; take --align crop or --faces center"
        )
    if detector is None:
        if spec.uses_keypoints and not spec.is_aligned:
            raise ValueError(
                f"--align {spec.framing}: the network reads keypoints, which only a "
                "--detector finds in photos that are not aligned; name one"
            )
        for name, photo in photos:
            yield _aligned_already(name, photo, spec)
        return
    # Photos that cannot be read keep their places between those that can.
    reasons: collections.deque[tuple[str, str | None]] = collections.deque()

    def readable() -> Iterator[tuple[str, np.ndarray]]:
        for name, photo in photos:
            unread = isinstance(photo, str)
            reasons.append((name, photo if unread else None))
            if not unread:
                yield name, photo

    def unreadable() -> Iterator[PhotoFaces]:
        while reasons and reasons[0][1] is not None:
            yield _without_face(*reasons.popleft())

    order = "largest" if faces == "largest" else "center"
    count = None if faces == "all" else 1
    options = dict(batch_size=batch_size, order=order, count=count)
    found = find_faces(detector, readable(), **options)
    while chunk := list(itertools.islice(found, batch_size)):
        for result in _align(chunk, spec):
            yield from unreadable()
            reasons.popleft()
            yield result
    yield from unreadable()


def _align(chunk: list[PhotoDetections], spec: InputSpec) -> Iterator[PhotoFaces]:
    """Align the faces of photos, of all photos in one batch."""
    patches, kept, reasons = [], [], []
    for found in chunk:
        kept.append([])
        reasons.append(list(found.reasons))
        for i, keypoints in enumerate(found.keypoints):
            try:
                patches.append(
                    cut_patch(found.photo, keypoints, spec, box=found.boxes[i])
                )
                kept[-1].append(i)
            except NoFaceError as error:
                reasons[-1].append(str(error))
    aligned = iter(align_patches(patches, spec))
    for found, index, why in zip(chunk, kept, reasons, strict=True):
        photo, notes = found.photo, list(found.notes)
        if found.turns:
            photo = np.rot90(photo, -found.turns)
            notes.insert(0, f"turned by {90 * found.turns} degrees")
        yield PhotoFaces(
            found.name,
            photo,
            list(itertools.islice(aligned, len(index))),
            upright_boxes(found.boxes[index], found.turns),
            upright_points(found.keypoints[index], found.turns),
            found.scores[index],
            why,
            notes,
            None if found.poses is None else found.poses[index],
        )


def _aligned_already(name: str, photo: np.ndarray | str, spec: InputSpec) -> PhotoFaces:
    """A photo that is an aligned face."""
    if isinstance(photo, str):
        return _without_face(name, photo)
    height, width = spec.image_size
    if spec.framing == "none":
        middle = np.full((5, 2), 0.5, np.float32)  # read by nobody
        image = align(photo, middle, spec).image
        return _whole(name, photo, AlignedFace(image, middle), middle)
    margin = photo.shape[1] - width
    if photo.shape[0] != height or margin < 0 or margin % 2:
        return _without_face(
            name,
            f"it must be an aligned face of {height} x {width} pixels; got "
            f"{photo.shape[0]} x {photo.shape[1]}; give --detector to align it",
            photo,
        )
    image = to_unit_range(photo[:, margin // 2 : margin // 2 + width])
    framing = spec.framing if spec.is_aligned else "template"
    template = face_template(photo.shape[:2], framing) / np.float32(photo.shape[1::-1])
    keypoints = face_template(spec.image_size, framing) / np.float32([width, height])
    return _whole(name, photo, AlignedFace(image, keypoints), template)


def _whole(
    name: str, photo: np.ndarray, face: AlignedFace, keypoints: np.ndarray
) -> PhotoFaces:
    """A photo that is one face."""
    box = np.float32([[0, 0, 1, 1]])
    score = np.ones(1, np.float32)
    return PhotoFaces(name, photo, [face], box, keypoints[None], score, [])


def _without_face(
    name: str, reason: str, photo: np.ndarray | None = None
) -> PhotoFaces:
    boxes, keypoints, scores = (
        np.zeros(shape, np.float32) for shape in ((0, 4), (0, 5, 2), (0,))
    )
    return PhotoFaces(name, photo, [], boxes, keypoints, scores, [reason])
