"""Verify whether two photos show the same person."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kprpe_jax.alignment.framing import NoFaceError
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.features import Features, concatenate
from kprpe_jax.data.importers.record import RejectedRecord
from kprpe_jax.data.left_out import faces_left_out
from kprpe_jax.data.read_photos import find_photos
from kprpe_jax.detection.detector import Detector
from kprpe_jax.evaluation.scores import pair_similarity
from kprpe_jax.gallery.photos import average, embed_photos, list_photos
from kprpe_jax.gallery.thresholds import measured_threshold


class Verification(NamedTuple):
    """What two photos say.

    Attributes:
      same: whether the score reaches the threshold; None without a threshold.
      score: cosine of the embeddings, in [-1, 1].
      threshold: None = none was given, and none was measured for the network.
      false_acceptance_rate: share of pairs of two people that the threshold accepts, in
        [0, 1]; None = unknown.
      measured_on: the data of that rate; "" = unknown.
      notes: what else is worth telling of a photo.
      used: photos and frames with a face.
      left_out: everything else that was given.
    """

    same: bool | None
    score: float
    threshold: float | None
    false_acceptance_rate: float | None
    measured_on: str
    notes: Sequence[str] = ()
    used: int = 2
    left_out: Sequence[RejectedRecord] = ()


def verify(
    first: str | os.PathLike,
    second: str | os.PathLike,
    recognizer: Recognizer,
    detector: Detector | None = None,
    *,
    faces: str = "center",
    threshold: float | None = None,
) -> Verification:
    """Compare two photos; of a folder or a video all faces are averaged.

    Args:
      first, second: the photos.
      recognizer: the network.
      detector: None = photos are aligned faces already.
      faces: of a photo: `center` or `largest`.
      threshold: least score of the same person, in [-1, 1]; None: the measured one of a
        published network.
    Raises: ValueError: no such photo, a threshold out of range. NoFaceError: a photo
      cannot be read, or shows no usable face.
    """
    if threshold is not None and not -1 <= threshold <= 1:
        raise ValueError(f"--threshold must lie in [-1, 1]; got {threshold}.")
    notes: list[str] = []
    left_out: list[RejectedRecord] = []
    options = dict(faces=faces, notes=notes, left_out=left_out)
    sides = [_embed(x, recognizer, detector, **options) for x in (first, second)]
    used = sum(len(side.embeddings) for side in sides)
    score = pair_similarity(*(average(side).embeddings[None] for side in sides))
    score = float(np.asarray(score)[0])
    measured = measured_threshold(recognizer)
    rate, data = None, ""
    if measured is not None and threshold in (None, measured.threshold):
        threshold, rate, data = (
            measured.threshold,
            measured.false_acceptance_rate,
            measured.data,
        )
    same = None if threshold is None else score >= threshold
    return Verification(same, score, threshold, rate, data, notes, used, left_out)


def _embed(
    path: str | os.PathLike,
    recognizer: Recognizer,
    detector: Detector | None,
    faces: str,
    notes: list[str],
    left_out: list[RejectedRecord],
) -> Features:
    """Features [F, ...] of all faces of the person of a photo.

    `notes` and `left_out` take what else there is to tell.
    """
    given = find_photos(path)
    lost, parts = given.passed_over(), []
    first = len(lost)
    for photo in embed_photos(list_photos(given), recognizer, detector, faces=faces):
        lost += faces_left_out(photo.faces, photo.name)
        notes += (f"{photo.faces.name}: {note}" for note in photo.faces.notes)
        if photo.features is not None:
            parts.append(photo.features)
    if not parts:
        raise NoFaceError(f"{os.fspath(path)}: {lost[first].reason}")
    top = "" if given.files == [given.path] else f"{os.fspath(path)}/"
    left_out += (row._replace(key=f"{top}{row.key}") for row in lost)
    return concatenate(parts)
