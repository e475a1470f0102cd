"""Detect faces in photos of any sizes, in batches.

Photos are placed on square canvases of a few sizes, so that a detector compiles once
per canvas.
"""

import collections
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from kprpe_jax.core.input_spec import to_unit_range
from kprpe_jax.detection.detections import Detections
from kprpe_jax.detection.detector import Detector

ORDERS = ("center", "largest", "score")
_MAX_PENDING = 1 << 26  # pixels of photos that wait for their batch or their turn


class PhotoDetections(NamedTuple):
    """The faces of one photo.

    Attributes:
      name: of the photo.
      photo: uint8 [H, W, 3].
      boxes: float32 [F, 4], (left, top, right, bottom) as fractions of the photo;
        F = 0 where there is no face.
      keypoints: float32 [F, K, 2], (x, y) as fractions of the photo.
      scores: float32 [F], in 0..1.
      poses: float32 [F, 3], of the photo as it is here, or None; see `Detections`.
      turns: quarter turns, of `np.rot90`, after which the photo is as here.
      reasons: why faces that were asked for are not here.
      notes: what else is worth telling.
    """

    name: str
    photo: np.ndarray
    boxes: np.ndarray
    keypoints: np.ndarray
    scores: np.ndarray
    poses: np.ndarray | None = None
    turns: int = 0
    reasons: Sequence[str] = ()
    notes: Sequence[str] = ()


def detect_photos(
    detector: Detector,
    photos: Iterable[tuple[str, np.ndarray]],
    *,
    batch_size: int,
    order: str = "center",
    compiled: dict[int, int] | None = None,
) -> Iterator[PhotoDetections]:
    """Detect the faces of photos, in batches of photos with the same canvas.

    Args:
      detector: the network.
      photos: names and uint8 [H, W, 3], RGB, any sizes.
      batch_size: photos at once, at most.
      order: of a photo's faces: "center", first the box with the largest
        side x exp(-2 d^2), d = distance of its center from the photo's middle over half
        the photo's shorter side; "largest", the largest box first; "score", the best
        score first.
      compiled: per canvas, for how many photos the detector is compiled already;
        raised where it is compiled for more.
    Returns: one result per photo, in the order of the photos, with every face that the
      detector gives.
    Raises: ValueError: an unknown order.
    """
    if order not in ORDERS:
        raise ValueError(
            f"detect_photos: order must be one of {', '.join(ORDERS)}; got {order!r}"
        )
    queues: dict[int, list[tuple[int, str, np.ndarray]]] = {
        side: [] for side in detector.canvases
    }
    batches = {} if compiled is None else compiled
    done: dict[int, PhotoDetections] = {}
    pending = first = 0  # pixels read but not given back; the next photo to give back

    # Batches that the device works on while the next one is filled.
    running: collections.deque[tuple[list, Any]] = collections.deque()

    def flush(side: int) -> None:
        rows, queues[side] = queues[side], []
        if rows:
            # A few photos alone take a small batch, the rest of many the compiled one.
            size = min(1 << (len(rows) - 1).bit_length(), batch_size)
            batches[side] = max(batches.get(side, 1), size)
            running.append((rows, _start(detector, rows, side, batches[side])))
            finish(1)

    def finish(in_flight: int = 0) -> None:
        while len(running) > in_flight:
            rows, started = running.popleft()
            found = _finish(rows, *started, order)
            done.update(zip((row[0] for row in rows), found, strict=True))

    for number, (name, photo) in enumerate(photos):
        longest = max(photo.shape[:2])
        fitting = (side for side in detector.canvases if side >= longest)
        side = next(fitting, detector.canvases[-1])
        queues[side].append((number, name, photo))
        pending += longest * min(photo.shape[:2])
        if len(queues[side]) == batch_size:
            flush(side)
        if pending > _MAX_PENDING:
            for side in queues:
                flush(side)
            finish()
        while first in done:
            result = done.pop(first)
            pending -= result.photo[..., 0].size
            first += 1
            yield result
    for side in queues:
        flush(side)
    finish()
    for number in sorted(done):
        yield done.pop(number)


def _start(
    detector: Detector,
    rows: list[tuple[int, str, np.ndarray]],
    side: int,
    batch_size: int,
) -> tuple[Detections, list[tuple[np.ndarray, np.ndarray]], int]:
    """Begin to detect the faces of at most `batch_size` photos on one canvas."""
    canvases = np.zeros((batch_size, side, side, 3), np.uint8)
    frames = [
        _place(photo, canvas, enlarge=detector.enlarge)
        for canvas, (_, _, photo) in zip(canvases, rows, strict=False)
    ]
    return detector.detect(to_unit_range(jnp.asarray(canvases))), frames, side


def _finish(
    rows: list[tuple[int, str, np.ndarray]],
    detections: Detections,
    frames: list[tuple[np.ndarray, np.ndarray]],
    side: int,
    order: str,
) -> list[PhotoDetections]:
    """Wait for what `_start` began."""
    detections = jax.device_get(detections)
    results = []
    for number, ((_, name, photo), (corner, size)) in enumerate(
        zip(rows, frames, strict=False)
    ):
        found = jax.tree.map(lambda x, row=number: x[row], detections)
        boxes, keypoints, scores, _, poses = jax.tree.map(
            lambda x, mask=found.mask: x[mask], found
        )
        boxes = ((boxes.reshape(-1, 2, 2) * side - corner) / size).reshape(-1, 4)
        keypoints = (keypoints * side - corner) / size
        index = _order(boxes * np.tile(photo.shape[1::-1], 2), scores, photo, order)
        results.append(
            PhotoDetections(
                name,
                photo,
                boxes[index].astype(np.float32),
                keypoints[index].astype(np.float32),
                scores[index],
                None if poses is None else poses[index],
            )
        )
    return results


def _order(
    boxes: np.ndarray, scores: np.ndarray, photo: np.ndarray, order: str
) -> np.ndarray:
    """Order of faces whose boxes [F, 4] are in pixels."""
    low, high = boxes[:, :2], boxes[:, 2:]
    if order == "score":
        key = -scores
    elif order == "largest":
        key = -np.prod(high - low, axis=-1)
    else:
        # Size alone takes the large face at the edge, distance alone the small one
        # behind the person photographed.
        size = np.array(photo.shape[1::-1])
        offset = ((low + high) / 2 - size / 2) / (size.min() / 2)
        sides = np.sqrt(np.maximum(np.prod(high - low, axis=-1), 0))
        key = -sides * np.exp(-2 * np.square(offset).sum(-1))
    return np.argsort(key, kind="stable")


def _place(
    photo: np.ndarray, canvas: np.ndarray, *, enlarge: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a photo into the middle of a canvas; give its (x, y) corner and size."""
    side, size = len(canvas), np.array(photo.shape[1::-1])
    scale = side / size.max()
    if scale < 1 or enlarge:
        size = np.maximum(np.round(size * scale).astype(int), 1)
        resized = Image.fromarray(photo).resize(tuple(size), Image.Resampling.BILINEAR)
        photo = np.asarray(resized)
    left, top = corner = (side - size) // 2
    canvas[top : top + size[1], left : left + size[0]] = photo
    return corner, size
