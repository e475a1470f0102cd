"""A recognizer's features of faces, clean and degraded, as rows of `data.features`."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from kprpe_jax.augmentation.recipe import Recipe, augment, make_recipe
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.features import Features
from kprpe_jax.core.input_spec import to_unit_range
from kprpe_jax.core.mesh import data_mesh
from kprpe_jax.evaluation.embedding import embed, map_rows, place

# Crop, blur and photometric degradation as in the official precomputation, where they
# come together; the strength of the blur is ours. Without flips: `clean` has these.
DEGRADATION = dict(
    occlusion={"crop_prob": 0.3},
    blur={"prob": 0.95, "weights": (0.1, 0.2, 0.7), "side": (0.05, 0.4)},
    photometric={"prob": 0.5, "kind": "jitter"},
)
_FIELDS = {"embeddings": "embedding", "style": "style", "patches": "patches"}
_CHUNK = 32  # batches whose features are in memory


def degradation() -> Recipe:
    """The recipe of the degraded copies."""
    return make_recipe("none", **DEGRADATION)


def about(recognizer: Recognizer) -> dict[str, str]:
    """Name, fingerprint and contract of a recognizer, for the files of its features."""
    return {
        "recognizer": recognizer.name,
        "fingerprint": recognizer.fingerprint,
        "input_spec": recognizer.input_spec.describe(),
    }


def row_shapes(
    recognizer: Recognizer, fields: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    """Field of a row -> its shape; `fields` of Features."""
    shapes = recognizer.shapes()
    return {_FIELDS[name]: getattr(shapes, name).shape[1:] for name in fields}


def clean_rows(
    recognizer: Recognizer,
    faces: Sequence,
    labels: np.ndarray,
    *,
    fields: Sequence[str] = ("embeddings", "style"),
    mirror: str = "none",
    batch_size: int = 64,
    mesh: Mesh | None = None,
) -> Iterator[dict[str, Any]]:
    """Rows of the split `clean`, computed as they are read.

    Args:
      recognizer: the network.
      faces: N rows with `image` uint8 [H, W, 3] and, where the network reads them,
        `keypoints`.
      labels: int32 [N].
      fields: of Features that the rows have.
      mirror: of `embed`.
      batch_size: images at once.
      mesh: the devices; None = all.
    """
    mesh, recognizer = _placed(recognizer, mesh)
    for photos, part in _chunks(faces, batch_size):
        features = embed(
            recognizer,
            part,
            batch_size=batch_size,
            mesh=mesh,
            mirror=mirror,
            fields=fields,
        )
        yield from _rows([features], labels, photos)


def degraded_rows(
    recognizer: Recognizer,
    faces: Sequence,
    labels: np.ndarray,
    *,
    copies: int,
    seed: int = 0,
    fields: Sequence[str] = ("embeddings", "style"),
    batch_size: int = 64,
    mesh: Mesh | None = None,
    recipe: Recipe | None = None,
) -> Iterator[dict[str, Any]]:
    """Rows of the split `degraded`, computed as they are read.

    How a copy is degraded depends on the seed, the photo and the copy alone.

    Args:
      recognizer, faces, labels, fields, batch_size, mesh: as `clean_rows`.
      copies: degraded copies of each photo.
      seed: of the degradations.
      recipe: of the degradations; None = `degradation()`.
    """
    recipe = degradation() if recipe is None else recipe
    mesh, recognizer = _placed(recognizer, mesh)
    run = partial(_degraded, recipe=recipe, fields=tuple(fields))
    options = dict(batch_size=batch_size, mesh=mesh)
    for photos, part in _chunks(faces, batch_size):
        found = [
            map_rows(
                lambda batch, _, copy=copy: run(
                    recognizer, batch, np.uint32(seed), np.uint32(copy)
                ),
                part,
                **options,
            )
            for copy in range(copies)
        ]
        yield from _rows(found, labels, photos)


@partial(jax.jit, static_argnames=("recipe", "fields"))
def _degraded(
    recognizer: Recognizer,
    batch: dict[str, jax.Array],
    seed: jax.Array,
    copy: jax.Array,
    *,
    recipe: Recipe,
    fields: tuple[str, ...],
) -> Features:
    """Features of a degraded copy of a batch."""
    key = jax.random.fold_in(jax.random.key(seed), copy)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["photo"])
    images = to_unit_range(batch["image"])
    keypoints = batch.get("keypoints", jnp.zeros((len(images), 0, 2)))
    images, keypoints = augment(keys, images, keypoints, recipe)
    features = recognizer.features(images, keypoints)
    return Features(
        *(x if name in fields else None for name, x in features._asdict().items())
    )


class _Chunk(Sequence):
    """Some rows of faces, each with the number of its photo."""

    def __init__(self, faces: Sequence, photos: np.ndarray):
        self._faces, self._photos = faces, photos

    def __len__(self) -> int:
        return len(self._photos)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        photos = self._photos[np.asarray(rows)]
        read = self._faces.__getitems__(photos)
        names = [name for name in ("image", "keypoints") if name in read[0]]
        return [
            {**{name: row[name] for name in names}, "photo": np.int32(photo)}
            for row, photo in zip(read, photos, strict=True)
        ]


def _chunks(faces: Sequence, batch_size: int) -> Iterator[tuple[np.ndarray, _Chunk]]:
    for start in range(0, len(faces), _CHUNK * batch_size):
        photos = np.arange(start, min(start + _CHUNK * batch_size, len(faces)))
        yield photos, _Chunk(faces, photos)


def _rows(
    copies: list[Features], labels: np.ndarray, photos: np.ndarray
) -> Iterator[dict[str, Any]]:
    """Rows of each photo's copies in a row."""
    for row, photo in enumerate(photos):
        for features in copies:
            values = {
                _FIELDS[name]: x[row]
                for name, x in features._asdict().items()
                if x is not None
            }
            if "patches" in values:
                values["patches"] = values["patches"].astype(np.float16)
            label = np.int32(labels[photo])
            yield {**values, "label": label, "photo": np.int32(photo)}


def _placed(recognizer: Recognizer, mesh: Mesh | None) -> tuple[Mesh, Recognizer]:
    if mesh is None:
        mesh = data_mesh()
    return mesh, place(recognizer, mesh)
