"""The type of face detectors; RetinaFace and the differentiable aligner as such."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax

from kprpe_jax.core.fingerprint import fingerprint_arrays
from kprpe_jax.detection.detections import (
    Detections,
    decode_detections,
    merge_close_ups,
)
from kprpe_jax.detection.differentiable_aligner import DifferentiableAligner
from kprpe_jax.detection.retinaface import RetinaFace

CANVASES = (128, 256, 512, 1024)  # sides, pixels
MAX_FACES = 64  # of a photo
# RetinaFace detects parts of a face that is larger than its anchors, and whole faces in
# an image of a quarter of the size.
_CLOSE_UP = 200  # pixels, side of a box
_QUARTER = 4


class Detector(NamedTuple):
    """A network that detects faces, with its weights.

    Attributes:
      name: in words, for messages and files.
      detect: float32 [B, S, S, 3], RGB in [-1, 1] -> Detections; compiled.
      canvases: sides S in pixels, ascending; a photo is placed on the smallest that
        holds it and is shrunk to fit the last one.
      enlarge: whether smaller photos are enlarged to their canvas.
      license: one line about the weights; "" = unknown.
      fingerprint: hexadecimal text that changes with the network, its weights and its
        options.
      second_look: detects as `detect`, upright faces in aligned images, for
        `find_faces`; it may give fewer keypoints; None = faces are not looked at again.
      max_faces: as many or more in a photo may be a part of those in it; 0 = unlimited.
    """

    name: str
    detect: Callable[[jax.Array], Detections]
    canvases: tuple[int, ...]
    enlarge: bool
    license: str = ""
    fingerprint: str = ""
    second_look: Callable[[jax.Array], Detections] | None = None
    max_faces: int = 0


def choose_canvases(sides: Sequence[int], max_side: int) -> tuple[int, ...]:
    """Sides of a detector's canvases: those below the largest, and that.

    Raises: ValueError: a largest side below 32.
    """
    if max_side < 32:
        raise ValueError(
            f"--max-side must be at least 32 pixels; got {max_side}; 1024 is usual."
        )
    return (*(side for side in sides if side < max_side), max_side)


def retinaface_detector(
    model: RetinaFace,
    variables: Any,
    *,
    max_faces: int = MAX_FACES,
    min_score: float = 0.5,
    max_side: int = CANVASES[-1],
    name: str = "RetinaFace",
    license: str = "",  # noqa: A002
) -> Detector:
    """Detect all faces of photos, small ones and those that fill the photo.

    Args:
      model, variables: the network.
      max_faces: of a photo, at each of two scales: those with the best scores.
      min_score: faces must score more.
      max_side: larger photos are shrunk to it, in pixels. Faces of less than 10 pixels
        after that are not detected.
      name, license: of the result.
    Raises: ValueError: a side below 32.
    """
    canvases = choose_canvases(CANVASES, max_side)

    @jax.jit
    def detect(variables: Any, images: jax.Array) -> Detections:
        def at_scale(images: jax.Array) -> Detections:
            return decode_detections(
                model.apply(variables, images),
                images.shape[1:3],
                max_faces=max_faces,
                min_score=min_score,
            )

        detections = at_scale(images)
        batch, side, _, channels = images.shape
        if side <= _CLOSE_UP:
            return detections
        shape = batch, side // _QUARTER, side // _QUARTER, channels
        quarter = jax.image.resize(images, shape, "linear", antialias=True)
        return merge_close_ups(detections, at_scale(quarter), _CLOSE_UP / side)

    about = model, max_faces, min_score, max_side
    run = partial(detect, variables)
    return Detector(
        name,
        run,
        canvases,
        enlarge=False,
        license=license,
        fingerprint=fingerprint_arrays(about, variables),
        second_look=run,
        max_faces=max_faces,
    )


def aligner_detector(
    model: DifferentiableAligner,
    variables: Any,
    *,
    min_score: float = 0.5,
    name: str = "differentiable aligner",
    license: str = "",  # noqa: A002
) -> Detector:
    """Detect the one face that fills each photo.

    Args:
      model, variables: the differentiable aligner.
      min_score: the face must score more.
      name, license: of the result.
    """

    @jax.jit
    def detect(variables: Any, images: jax.Array) -> Detections:
        face, _ = model.apply(variables, images, method="find_face")
        mask = face.score > min_score
        fields = face.box, face.keypoints, face.score, mask
        return Detections(*(x[:, None] for x in fields))

    return Detector(
        name,
        partial(detect, variables),
        (model.input_size,),
        enlarge=True,
        license=license,
        fingerprint=fingerprint_arrays((model, min_score), variables),
    )
