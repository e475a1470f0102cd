"""Whether exported programs compute what the networks do, on given images."""

import json
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.features import Features, take
from kprpe_jax.core.npz import read_npz
from kprpe_jax.core.program import read_program
from kprpe_jax.core.unit import direction
from kprpe_jax.detection.detector import Detector
from kprpe_jax.fusion.cluster_aggregate import ImageSets
from kprpe_jax.fusion.files import FusionFile
from kprpe_jax.weights.programs import ABOUT, WEIGHTS, read_about, write_about

MOST = 1e-4  # of the difference


class Agreement(NamedTuple):
    """How far a program's results are from a network's.

    Attributes:
      difference: the largest, of unit embeddings, or of boxes, keypoints and scores.
      images: how many were compared, and which.
      platform: on which both ran.
    """

    difference: float
    images: str
    platform: str

    def describe(self) -> str:
        """One line for people."""
        return (
            f"differs from the network by at most {self.difference:.1e} on "
            f"{self.images} ({self.platform})"
        )


def check_recognizer(
    recognizer: Recognizer,
    exported: Callable[..., Any],
    images: np.ndarray,
    keypoints: np.ndarray,
) -> float:
    """Largest difference of unit embeddings, of all images at once and of three.

    Args:
      recognizer: the network.
      exported: its program's `embed`, or another function of the same arguments.
      images: float32 [B, *image_size, 3] in [-1, 1].
      keypoints: float32 [B, K, 2], fractions of the images.
    """
    inputs = (images, keypoints)[: 1 + recognizer.uses_keypoints]
    want = np.asarray(direction(jax.jit(Recognizer.embed)(recognizer, *inputs)))
    return max(
        _distance(direction(exported(*(x[:count] for x in inputs))), want[:count])
        for count in (len(images), 3)
    )


def check_fusion_programs(
    folder: str | os.PathLike, file: FusionFile, features: Features
) -> float:
    """Largest difference of the unit embedding of one set, in a stream of two batches.

    Args:
      folder: of the programs.
      file: the model.
      features: of N >= 4 images, float32 [N, …].
    """
    about = read_about(folder, "fusion")
    call = {
        name: read_program(folder, one).call for name, one in about["programs"].items()
    }
    weights = dict(read_npz(pathlib.Path(folder) / WEIGHTS))
    start = read_npz(pathlib.Path(folder) / "start.npz")
    count = len(features.embeddings)
    halves = []
    for part in (slice(0, 3), slice(3, count)):
        own = take(features, part)
        known = {**own._asdict(), "scores": np.ones(len(own.embeddings), np.float32)}
        images = {name: np.asarray(known[name])[None] for name in about["inputs"]}
        mask = np.ones((1, len(own.embeddings)), bool)
        state = call["update"](weights, dict(start), images, mask)
        halves.append((state, ImageSets(jax.tree.map(lambda x: x[None], own), mask)))
    (first, _), (second, _) = halves
    got = call["finalize"](weights, call["merge"](first, second))["embeddings"]
    state = file.model.init_state(1)
    parts = [
        file.model.apply(file.variables, state, sets, method="update")
        for _, sets in halves
    ]
    want = file.model.apply(
        file.variables, file.model.merge(*parts), method="finalize"
    ).embeddings
    return _distance(direction(got), direction(want))


def check_detector_programs(
    folder: str | os.PathLike, detector: Detector, images: np.ndarray
) -> float:
    """Largest difference of boxes, keypoints, scores and half turns, over all canvases.

    Args:
      folder: of the programs.
      detector: the detector.
      images: float32 [B, S, S, 3] in [-1, 1], of which each canvas shows a corner or
        all.
    """
    most = 0.0
    for side, one in read_about(folder, "detector")["programs"].items():
        canvas = np.full((len(images), int(side), int(side), 3), -1, np.float32)
        size = min(int(side), images.shape[1])
        canvas[:, :size, :size] = images[:, :size, :size]
        got = read_program(folder, one).call(canvas)
        want = detector.detect(canvas)
        if not np.array_equal(got["mask"], want.mask):
            return float("inf")
        for name in got:
            unit = 180 if name == "poses" else 1
            most = max(most, _distance(got[name], getattr(want, name)) / unit)
    return most


def keep_agreement(folder: str | os.PathLike, found: Agreement) -> bool:
    """Write it into the folder's description, which goes if the programs disagree.

    Returns: whether they agree: the difference is at most MOST.
    """
    path = pathlib.Path(folder) / ABOUT
    if not found.difference <= MOST:
        path.unlink()
        return False
    about = json.loads(path.read_text("utf-8"))
    write_about(folder, about | {"agreement": found._asdict()})
    return True


def _distance(got: Any, want: Any) -> float:
    return float(np.abs(np.asarray(got, float) - np.asarray(want, float)).max())
