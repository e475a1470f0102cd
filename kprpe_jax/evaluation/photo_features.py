"""Features of aligned faces that come from photos."""

import math
from collections.abc import Sequence
from functools import partial

import jax
import numpy as np
from jax import Array

from kprpe_jax.alignment.photos import AlignedFace
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.features import Features
from kprpe_jax.core.mesh import AXES, make_mesh
from kprpe_jax.evaluation.embedding import map_rows, mirror_faces, place


def embed_faces(
    recognizer: Recognizer,
    faces: Sequence[AlignedFace],
    *,
    batch_size: int,
    fields: Sequence[str] = ("embeddings",),
    mirror: str = "none",
) -> Features:
    """Features of aligned faces, on the host.

    Args:
      recognizer: the network that the faces were aligned for.
      faces: at least one.
      batch_size: faces at once; the devices that divide it are used.
      fields: of Features that are computed; the others are None.
      mirror: `none`, or `sum`: of the embeddings of a face and its mirror image.
    """
    count = math.gcd(batch_size, jax.local_device_count())
    shape = dict.fromkeys(AXES, 1) | {"data": count}
    mesh = make_mesh(shape, jax.local_devices()[:count])
    rows = [
        {"image": face.image, "keypoints": np.float32(face.keypoints)} for face in faces
    ]
    placed = place(recognizer, mesh)
    return map_rows(
        lambda batch, _: _features(
            placed,
            batch["image"],
            batch["keypoints"],
            fields=tuple(fields),
            mirror=mirror,
        ),
        _Rows(rows),
        batch_size=batch_size,
        mesh=mesh,
    )


class _Rows(list):
    """Rows in memory, read several at once."""

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, np.ndarray]]:
        return [self[row] for row in rows]


@partial(jax.jit, static_argnames=("fields", "mirror"))
def _features(
    recognizer: Recognizer,
    images: Array,
    keypoints: Array,
    *,
    fields: tuple[str, ...],
    mirror: str,
) -> Features:
    features = recognizer.features(images, keypoints)
    if mirror == "sum":
        flipped = recognizer.embed(*mirror_faces(images, keypoints))
        features = features._replace(embeddings=features.embeddings + flipped)
    return Features(
        *(x if name in fields else None for name, x in features._asdict().items())
    )
