"""Fuse the faces of photos and videos into the features of one person, in a stream."""

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from kprpe_jax.core.features import Features, concatenate, take
from kprpe_jax.fusion.files import FusionFile, Stream
from kprpe_jax.fusion.stream import BATCH_IMAGES, finalize, merge_images
from kprpe_jax.gallery.photos import EmbeddedPhoto

# What a fusion reads of an image; patches and keypoints are what a gallery keeps.
FUSED_FIELDS = ("embeddings", "style", "keypoints")


class FaceStream:
    """Faces of one person, fused as they come.

    Kept are the state of the fusion, the sums of the patches and keypoints, and the
    faces that do not fill a group of BATCH_IMAGES yet, without their patches.
    """

    def __init__(self, file: FusionFile, stream: Stream | None = None):
        """Begin a stream, or continue one.

        Args:
          file: the fusion, of the faces' recognizer.
          stream: of `load_stream`; its images are counted, their patches are not known.
        """
        self._file = file
        self._state, self.images = stream or (file.model.init_state(1), 0)
        self._waiting: list[tuple[Features, np.ndarray]] = []
        self._sums: tuple[Any, Any] | None = None
        self._count = 0  # images of this stream's sums

    def add(self, features: Features, scores: np.ndarray) -> None:
        """Add faces.

        Args:
          features: [F, ...], host arrays.
          scores: float32 [F] in [0, 1], the detector's.
        Raises: ValueError: features that are not finite.
        """
        if not np.isfinite(features.embeddings).all():
            raise ValueError(
                "fusion: embeddings must be finite; got one with NaN or infinity; "
                "look at the photos and at the network's weights."
            )
        self.images += len(scores)
        self._count += len(scores)
        kept = features.patches, features.keypoints
        sums = jax.tree.map(lambda x: x.sum(0, dtype=np.float64), kept)
        if self._sums is not None:
            sums = jax.tree.map(np.add, self._sums, sums)
        self._sums = sums
        self._waiting.append((features._replace(patches=None), np.float32(scores)))
        while sum(len(scores) for _, scores in self._waiting) >= BATCH_IMAGES:
            self._merge()

    def stream(self) -> Stream:
        """The state of all images so far, which `save_stream` takes."""
        if self._waiting:
            self._merge()
        return Stream(self._state, self.images)

    def features(self) -> Features:
        """The features of the person.

        Returns: the fused embedding float32 [D]; the means of the images' patches
          [N, C] and keypoints [K, 2], None where they had none.
        """
        state = self.stream().state
        fused = finalize(self._file.model, self._file.variables, state)
        means = jax.tree.map(lambda x: np.float32(x / self._count), self._sums)
        patches, keypoints = (None, None) if means is None else means
        return Features(fused.embeddings[0], patches, keypoints=keypoints)

    def _merge(self) -> None:
        """Fuse the first group of what waits."""
        parts, scores = zip(*self._waiting, strict=True)
        features, scores = concatenate(parts), np.concatenate(scores)
        model, variables = self._file.model, self._file.variables
        first = slice(BATCH_IMAGES)
        self._state = merge_images(
            model, variables, self._state, take(features, first), scores[first]
        )
        rest = slice(BATCH_IMAGES, None)
        self._waiting = [(take(features, rest), scores[rest])]
        if not len(scores[rest]):
            self._waiting = []


def fuse_photos(
    file: FusionFile, photos: Iterable[EmbeddedPhoto]
) -> tuple[Features | None, int]:
    """Fuse all faces of photos and frames into one.

    Args:
      file: the fusion.
      photos: of one person, with the fields FUSED_FIELDS.
    Returns: the features of one image, as `FaceStream.features` gives them, None where
      no photo has a face; the number of faces.
    Raises: ValueError: as `FaceStream.add`.
    """
    stream = FaceStream(file)
    for photo in photos:
        if photo.features is not None:
            stream.add(photo.features, photo.faces.scores)
    return stream.features() if stream.images else None, stream.images
