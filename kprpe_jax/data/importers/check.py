"""Check every entry of a source before it is written: in threads, in order."""

import collections
import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from kprpe_jax.data.check import KEYPOINT_RANGE
from kprpe_jax.data.importers.decode import decode_rgb
from kprpe_jax.data.importers.landmarks import Landmarks
from kprpe_jax.data.importers.record import NO_IDENTITY, Record, RejectedRecord
from kprpe_jax.data.landmark_layouts import five_keypoints

_CHUNK = 32  # entries per task: handing over one costs as much as a small image


class Checked(NamedTuple):
    """An entry after the check.

    Attributes:
      record: None where the entry gives no row.
      bad: what is wrong, None = nothing. A record whose landmarks are missing or wrong
        has both.
      keypoints: float32 [5, 2] in 0..1; None = unknown.
      keypoints_from: where known, one of KEYPOINTS_FROM.
      size: height and width after decoding, pixels.
      landmarks: float32 [K, 2] of a table of other points than the five, NaN where
        one is missing; None = unknown.
    """

    record: Record | None
    bad: RejectedRecord | None = None
    keypoints: np.ndarray | None = None
    keypoints_from: str = ""
    size: tuple[int, int] = (0, 0)
    landmarks: np.ndarray | None = None


def check_all(
    entries: Iterable[Record | RejectedRecord],
    landmarks: Landmarks | None,
    num_workers: int,
) -> Iterator[Checked]:
    """Decode every image in threads (the decoder runs beside others), keep the order.

    Args:
      entries: of a source.
      landmarks: table of the keypoints, which precedes the entries' own
        keypoints; None = none.
      num_workers: threads.
    Returns: one result per entry.
    """

    def check_chunk(chunk: tuple[Record | RejectedRecord, ...]) -> list[Checked]:
        return [check(entry, landmarks) for entry in chunk]

    entries = iter(entries)
    with ThreadPoolExecutor(num_workers) as pool:
        pending = collections.deque()
        while chunk := tuple(itertools.islice(entries, _CHUNK)):
            pending.append(pool.submit(check_chunk, chunk))
            if len(pending) > 2 * num_workers:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()


def check(entry: Record | RejectedRecord, landmarks: Landmarks | None) -> Checked:
    """Decode one image and look up its keypoints."""
    if isinstance(entry, RejectedRecord):
        return Checked(None, entry)
    key, identity = entry.key, entry.identity
    if isinstance(identity, int) and not NO_IDENTITY <= identity < 2**31 - 1:
        return Checked(
            None, RejectedRecord(key, "wrong label", f"{identity} is no int32")
        )
    try:
        height, width = decode_rgb(entry.image).shape[:2]
    except ValueError as e:
        reason = str(e).removesuffix("; replace it")
        return Checked(None, RejectedRecord(key, "broken image", reason))
    points, origin, dense, bad = None, "table", None, None
    if landmarks is not None:
        points = landmarks.find(key, height, width)
        if points is None:
            bad = RejectedRecord(
                key, "missing landmarks", "the landmark table has no row for it"
            )
        if landmarks.is_dense:
            bad = bad or _fault(key, points, origin, some=True)
            dense = points if bad is None else None
            points = None if dense is None else five_keypoints(dense)
    known = points is not None and not np.isnan(points).all()
    if not known and entry.keypoints is not None:
        points, origin = entry.keypoints, entry.keypoints_from
        bad = bad if landmarks is not None and landmarks.is_dense else None
    if points is not None and (fault := _fault(key, points, origin)):
        bad, points = bad or fault, None
    origin = "" if points is None else origin
    return Checked(entry, bad, points, origin, (height, width), dense)


def _fault(
    key: str, points: np.ndarray, origin: str, *, some: bool = False
) -> RejectedRecord | None:
    """What is wrong with the points of an image; `some` may be missing (NaN)."""
    missing = np.isnan(points).any(-1)
    if np.isnan(points).all():
        reason = (
            "the detector finds no face in it"
            if origin == "detector"
            else "its points are placeholders: NaN, 0 or -1"
        )
        return RejectedRecord(key, "missing landmarks", reason)
    low, high = KEYPOINT_RANGE
    fitting = ((points >= low) & (points <= high)).all(-1)  # not where NaN
    if (fitting | (missing & some)).all():
        return None
    reason = f"must be fractions in [{low:g}, {high:g}]"
    return RejectedRecord(key, "wrong landmarks", reason)
