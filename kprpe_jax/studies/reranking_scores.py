"""Features and scores behind `reranking`, kept on disk between runs."""

import os
import pathlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.lib.format import open_memmap

from kprpe_jax.data.importers.decode import decode_rgb
from kprpe_jax.data.importers.tar_images import read_images
from kprpe_jax.interop.mobilefacenet import import_weights, published_mobilefacenet
from kprpe_jax.matching.earth_movers import patch_similarity
from kprpe_jax.matching.patch_weights import (
    Faces,
    correlation_weights,
    landmark_density,
    pair_weights,
)
from kprpe_jax.matching.sinkhorn import transport
from kprpe_jax.matching.two_stage import FAST

WEIGHTINGS = ("uniform", "apc", "cc", "sc", "landmarks", "sc_distance")
GRID = (7, 6)  # of MobileFaceNet
_SIDE = 112  # of aligned photos
# (rng, images [B, 112, 112, 3], keypoints) -> the same two
Change = Callable[[Array, Array, Array], tuple[Array, Array]]


class Photos(NamedTuple):
    """Aligned photos of people.

    Attributes:
      encoded: N files of 112 x 112 pixels.
      keypoints: float32 [N, 5, 2].
      labels: int32 [N].
      numbers: int [N], seed what is done to each photo.
    """

    encoded: list[bytes]
    keypoints: np.ndarray
    labels: np.ndarray
    numbers: np.ndarray

    def select(self, rows: np.ndarray) -> "Photos":
        """Some of the photos."""
        encoded = [self.encoded[row] for row in rows]
        return Photos(encoded, *(x[rows] for x in self[1:]))


class Features(NamedTuple):
    """Of N images.

    Attributes:
      faces: embeddings [N, 128], patches [N, 42, 512], densities [N, 42].
      pooled: float32 [N, 512], of the global depthwise convolution: as wide as a patch,
        which the embedding is not, it takes its place in the CC weights.
    """

    faces: Faces
    pooled: np.ndarray


def read_lfw(archive: str | os.PathLike, points: str | os.PathLike) -> Photos:
    """All photos of the people of whom there are two or more.

    Args:
      archive: aligned 112 x 112 photos as Name/Name_0001.jpg.
      points: .npz with `names` and `points112`, in pixels.
    Raises: ValueError: as `read_images`; a table that lacks these arrays.
    """
    try:
        with np.load(points, allow_pickle=False) as table:
            names = [name.decode() for name in table["names"]]
            keypoints = (table["points112"] + 0.5) / _SIDE
    except (OSError, KeyError, ValueError, AttributeError) as e:
        raise ValueError(
            f"read_lfw: {os.fspath(points)} must be an .npz with names and points112; "
            f"got {e}; give LFW's landmarks."
        ) from e
    people = [name.split("/")[0] for name in names]
    known, labels, counts = np.unique(people, return_inverse=True, return_counts=True)
    rows = np.flatnonzero(counts[labels] >= 2)
    encoded = read_images(archive, [names[row] for row in rows])
    _, labels = np.unique(labels[rows], return_inverse=True)
    return Photos(
        encoded,
        keypoints[rows].astype(np.float32),
        labels.astype(np.int32),
        np.arange(len(rows)),
    )


def embed_photos(
    photos: Photos,
    weights: str | os.PathLike,
    folder: pathlib.Path,
    change: Change | None = None,
    *,
    seed: int = 0,
    batch_size: int = 32,
) -> Features:
    """Features of photos as they are or changed, from `folder` where they are there.

    Args:
      photos: N of them.
      weights: of MobileFaceNet.
      folder: of the cache; features that were not finished are gone on with.
      change: what is done to the photos before.
      seed: of the change; what is done to a photo depends on its number alone.
      batch_size: B.
    """
    if not folder.exists():
        unfinished = folder.with_name(folder.name + ".unfinished")
        unfinished.mkdir(parents=True, exist_ok=True)
        _embed_to(photos, weights, unfinished, change, seed, batch_size)
        unfinished.rename(folder)
    names = ("embeddings", "patches", "densities", "pooled")
    read = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in names]
    embeddings, patches, densities, pooled = read
    return Features(Faces(embeddings, patches, densities=densities), pooled)


def _embed_to(
    photos: Photos,
    weights: str | os.PathLike,
    folder: pathlib.Path,
    change: Change | None,
    seed: int,
    batch_size: int,
) -> None:
    model = published_mobilefacenet()
    variables = import_weights(model, weights)
    margin = (_SIDE - model.image_size[1]) // 2

    @jax.jit
    def embed(images: Array, keypoints: Array, numbers: Array) -> dict[str, Array]:
        images = images.astype(jnp.float32) / 127.5 - 1
        if change is not None:
            fold = partial(jax.random.fold_in, jax.random.key(seed))
            keys = jax.vmap(fold)(numbers)
            images, keypoints = jax.vmap(_one_by_one(change))(keys, images, keypoints)
        images = images[:, :, margin:-margin]
        keypoints = (keypoints * _SIDE - jnp.array([margin, 0])) / jnp.array(
            model.image_size[::-1]
        )
        maps = model.apply(variables, images, method="features")["conv3"]
        pooled = model.apply(variables, maps, method=lambda m, x: m.pool(x, False))
        return {
            "embeddings": model.apply(variables, maps, method="embed_features"),
            "patches": maps.reshape(len(maps), -1, maps.shape[-1]),
            "densities": landmark_density(keypoints, GRID),
            "pooled": pooled.reshape(len(maps), -1),
        }

    count, progress = len(photos.encoded), folder / "done.txt"
    first = int(progress.read_text()) if progress.exists() else 0
    files: dict[str, np.memmap] = {}
    for start in range(first, count, batch_size):
        rows = np.minimum(np.arange(start, start + batch_size), count - 1)
        images = np.stack([decode_rgb(photos.encoded[row]) for row in rows])
        got = embed(images, photos.keypoints[rows], photos.numbers[rows])
        for name, values in got.items():
            if name not in files:
                shape, mode = (count, *values.shape[1:]), "r+" if first else "w+"
                files[name] = open_memmap(
                    folder / f"{name}.npy", mode, np.float32, shape
                )
            part = files[name][start : start + batch_size]
            part[:] = np.asarray(values)[: len(part)]
        progress.write_text(str(start + batch_size))
    for file in files.values():
        file.flush()


def _one_by_one(change: Change) -> Callable:
    def one(rng: Array, image: Array, keypoints: Array) -> tuple[Array, Array]:
        images, points = change(rng, image[None], keypoints[None])
        return images[0], points[0]

    return one


@partial(jax.jit, static_argnames="weightings")
def pair_scores(
    query: Features, gallery: Features, weightings: tuple[str, ...]
) -> Array:
    """Earth mover's similarities with several weightings, of cosines computed once.

    Args:
      query: [Q, ...].
      gallery: [Q, k, ...], or [1, k, ...] for all.
    Returns: float32 [Q, k, weightings].
    """
    query = jax.tree.map(lambda x: x[:, None], query)
    similarity = patch_similarity(query.faces.patches, gallery.faces.patches)

    def score(kind: str) -> Array:
        if kind == "cc":
            weights = (
                correlation_weights(query.faces.patches, gallery.pooled),
                correlation_weights(gallery.faces.patches, query.pooled),
            )
        else:
            weights = pair_weights(kind, query.faces, gallery.faces, similarity)
        plan = transport(1.0 - similarity, *weights, FAST)
        return (plan.flow * similarity).sum((-2, -1))

    return jnp.stack([score(kind) for kind in weightings], -1)


def candidate_scores(
    queries: Features,
    gallery: Features,
    rows: np.ndarray,
    file: pathlib.Path,
    *,
    weightings: Sequence[str] = WEIGHTINGS,
    chunk: int = 1,
) -> np.ndarray:
    """Scores of every query with its candidates, from `file` where they are there.

    Args:
      queries: Q of them.
      gallery: G.
      rows: int [Q, k].
      file: .npy, written whole or not at all.
      chunk: queries compared at once.
    Returns: float32 [Q, k, weightings].
    """
    if not file.exists():
        parts = []
        for start in range(0, len(rows), chunk):
            at = np.minimum(np.arange(start, start + chunk), len(rows) - 1)
            pair = _take(queries, at), _take(gallery, rows[at])
            parts.append(np.asarray(pair_scores(*pair, tuple(weightings))))
        _write(file, np.concatenate(parts)[: len(rows)])
    return np.load(file)


def whole_gallery_scores(
    queries: Features,
    gallery: Features,
    file: pathlib.Path,
    *,
    weightings: Sequence[str],
    chunk: int = 1,
    block: int = 100,
) -> np.ndarray:
    """As `candidate_scores`, of every query with every gallery image: [Q, G, W]."""
    if not file.exists():
        count, parts = len(gallery.pooled), []
        for start in range(0, count, block):
            at = np.minimum(np.arange(start, start + block), count - 1)
            part = jax.tree.map(jnp.asarray, _take(gallery, at[None]))
            column = [
                np.asarray(
                    pair_scores(
                        _take(
                            queries, np.arange(q, min(q + chunk, len(queries.pooled)))
                        ),
                        part,
                        tuple(weightings),
                    )
                )
                for q in range(0, len(queries.pooled), chunk)
            ]
            parts.append(np.concatenate(column))
        _write(file, np.concatenate(parts, 1)[:, :count])
    return np.load(file)


def select(features: Features, rows: np.ndarray) -> Features:
    """Some rows, read into memory."""
    return _take(features, rows)


def _take(features: Features, rows: np.ndarray) -> Features:
    return jax.tree.map(lambda x: np.asarray(x[rows]), features)


def _write(file: pathlib.Path, values: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(file.name + ".unfinished")
    with unfinished.open("wb") as f:
        np.save(f, values)
    os.replace(unfinished, file)
