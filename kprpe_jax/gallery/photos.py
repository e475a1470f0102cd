"""Photos to the aligned faces that an encoder reads."""

import os
from collections.abc import Callable, Sequence

import jax
import numpy as np

from kprpe_jax import registry
from kprpe_jax.alignment.photos import NoFaceError, align
from kprpe_jax.core.features import Features
from kprpe_jax.core.input_spec import InputSpec, to_unit_range
from kprpe_jax.data.importers.decode import decode_rgb
from kprpe_jax.data.importers.record import RejectedRecord, read_image
from kprpe_jax.detection.detector import retinaface_detector
from kprpe_jax.detection.photos import detect_photos
from kprpe_jax.gallery.encoder import Encoder
from kprpe_jax.geometry.template import face_template
from kprpe_jax.weights import import_weights

_MIN_SCORE = 0.5  # of a face
# encoded photo -> image [H, W, 3] and keypoints [5, 2]; or why there is no face
Prepare = Callable[[bytes], tuple[np.ndarray, np.ndarray] | str]


def aligned_photos(encoder: Encoder) -> Prepare:
    """Take faces that are aligned to the template already.

    They must have the encoder's size, or its height and more columns on both sides, as
    112 x 112 faces have for a network that reads 112 x 96.
    """
    height, width = encoder.image_size
    keypoints = face_template(encoder.image_size) / np.float32([width, height])

    def prepare(encoded: bytes) -> tuple[np.ndarray, np.ndarray] | str:
        try:
            image = decode_rgb(encoded)
        except ValueError as e:
            return str(e)
        margin = image.shape[1] - width
        if image.shape[0] != height or margin < 0 or margin % 2:
            return (
                f"it must be an aligned face of {height} x {width} pixels; got "
                f"{image.shape[0]} x {image.shape[1]}; give --detector to align it"
            )
        image = image[:, margin // 2 : margin // 2 + width]
        return to_unit_range(image), keypoints

    return prepare


def detected_photos(encoder: Encoder, weights: str | os.PathLike) -> Prepare:
    """Find the largest face of a photo and align it.

    Args:
      encoder: says the size.
      weights: of RetinaFace.
    Raises: ValueError: no such file, or other weights.
    """
    if not os.path.isfile(weights):
        raise ValueError(
            f"detected_photos: {os.fspath(weights)} is not a file; name the weights of "
            "RetinaFace."
        )
    model = registry.network("retinaface_mnet025").make()
    variables = import_weights(model, weights)
    detector = retinaface_detector(model, variables, min_score=_MIN_SCORE)
    spec = InputSpec(encoder.image_size)

    def prepare(encoded: bytes) -> tuple[np.ndarray, np.ndarray] | str:
        try:
            photo = decode_rgb(encoded)
        except ValueError as e:
            return str(e)
        (found,) = detect_photos(detector, [("", photo)], batch_size=1, order="largest")
        if not len(found.keypoints):
            return "no face was found in it; give a photo that shows one"
        try:
            return align(photo, found.keypoints[0], spec)
        except NoFaceError as e:
            return str(e)

    return prepare


def embed_faces(
    encoder: Encoder,
) -> Callable[[Sequence[tuple[np.ndarray, np.ndarray]]], Features]:
    """The encoder on the host's batches, padded to powers of two.

    Returns: function of (image, keypoints) pairs -> Features of NumPy arrays, float32.
    """
    compiled = jax.jit(encoder.embed)

    def embed(faces: Sequence[tuple[np.ndarray, np.ndarray]]) -> Features:
        count = len(faces)
        size = 1 << (count - 1).bit_length()
        padded = [*faces, *[faces[-1]] * (size - count)]
        images, keypoints = (np.stack(x) for x in zip(*padded, strict=True))
        result = jax.device_get(compiled(images, keypoints))
        return Features(result.embeddings[:count], result.patches[:count])

    return embed


def read_photo(path: str) -> bytes:
    """A file's bytes, empty where it cannot be read: no decoder knows these."""
    image = read_image(path, path)
    return b"" if isinstance(image, RejectedRecord) else image
