"""The one loop from rows to features: batched, padded, spread over a mesh."""

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from kprpe_jax.augmentation.spatial import FACE_MIRROR
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.features import Features
from kprpe_jax.core.input_spec import to_unit_range
from kprpe_jax.core.mesh import (
    batch_sharding,
    check_batch_size,
    data_mesh,
    put_batch,
    replicated,
)
from kprpe_jax.data.loader import eval_batches

MIRRORS = ("sum", "concatenate", "none")
# (rng, images [B, H, W, 3] in [-1, 1], keypoints [B, K, 2], arguments) -> the first two
Treatment = Callable[[Array, Array, Array, Any], tuple[Array, Array]]
_IN_FLIGHT = 2  # batches


def embed(
    recognizer: Recognizer,
    rows: Sequence,
    *,
    batch_size: int,
    mesh: Mesh | None = None,
    mirror: str = "none",
    fields: Sequence[str] = ("embeddings",),
    treatment: Treatment | None = None,
    arguments: Any = None,
    seed: int = 0,
) -> Features:
    """Features of all rows, on the host of every process.

    Rows are read while the devices work. Recognizers of one network share one compiled
    program, whatever their variables.

    Args:
      recognizer: its variables stay where they are if they are on the mesh.
      rows: N dicts with `image` uint8 [H, W, 3] and `keypoints` float32 [K, 2]
        (fractions of the image); a network that reads no keypoints needs none.
      batch_size: rows of the global batch, a multiple of the devices; the last batch is
        padded.
      mesh: the devices; None = all, as one data axis.
      mirror: of the embeddings, one of MIRRORS: `sum` of the raw ones of a face and its
        mirror image, as the official evaluations take it; `concatenate`, [N, 2 D].
        Other fields are of the image as it is.
      fields: which of Features are computed; the others are None.
      treatment: changes every batch first; its key depends on the seed and the number
        of the batch. A function of module level compiles once.
      arguments: of the treatment, a tree of arrays (or a recognizer).
      seed: of the treatment.
    Raises: ValueError: no rows; a batch that does not divide over the devices; an
      unknown mirror or field; images or keypoints that the network does not read.
    """
    mesh = data_mesh() if mesh is None else mesh
    run = _embedder(recognizer, mesh, mirror, fields, treatment, arguments, seed)
    return map_rows(run, rows, batch_size=batch_size, mesh=mesh)


def stream_features(
    recognizer: Recognizer,
    rows: Sequence,
    *,
    batch_size: int,
    mesh: Mesh | None = None,
    mirror: str = "none",
    fields: Sequence[str] = ("embeddings",),
) -> Iterator[Features]:
    """Features of all rows, a batch at a time; memory does not grow with N.

    Args and Raises: as `embed`.
    Returns: Features [b, ...] of all rows in order, on the host of every process.
    """
    mesh = data_mesh() if mesh is None else mesh
    run = _embedder(recognizer, mesh, mirror, fields)
    return stream_rows(run, rows, batch_size=batch_size, mesh=mesh)


def trace_embedding(
    recognizer: Recognizer, batch: Mapping[str, jax.ShapeDtypeStruct], *, mesh: Mesh
) -> jax.stages.Traced:
    """Trace the embedding of a batch, for devices that need not be there.

    Args:
      recognizer: of shapes with their shardings.
      batch: shapes of `image` and, where the network reads them, `keypoints`.
      mesh: the devices.
    """
    rows = {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=batch_sharding(mesh))
        for name, x in batch.items()
        if name in ("image", "keypoints")
    }
    number = jax.ShapeDtypeStruct((), np.uint32, sharding=replicated(mesh))
    return _embed_batch.trace(
        recognizer, rows, number, number, None,
        mirror="none", fields=("embeddings",), treatment=None,
    )  # fmt: skip


def _embedder(
    recognizer: Recognizer,
    mesh: Mesh,
    mirror: str,
    fields: Sequence[str],
    treatment: Treatment | None = None,
    arguments: Any = None,
    seed: int = 0,
) -> Callable[[dict[str, Array], Array], Features]:
    """Function of a batch and its number, for `stream_rows`; arguments as `embed`."""
    if mirror not in MIRRORS:
        raise ValueError(f"embed: unknown mirror {mirror!r}; use one of {MIRRORS}.")
    unknown = set(fields) - set(Features._fields)
    if unknown:
        raise ValueError(
            f"embed: unknown field {min(unknown)!r}; use some of {Features._fields}."
        )
    recognizer, arguments = place((recognizer, arguments), mesh)
    run = partial(
        _embed_batch, mirror=mirror, fields=tuple(fields), treatment=treatment
    )
    return lambda batch, index: run(
        recognizer,
        {name: batch[name] for name in ("image", "keypoints") if name in batch},
        index,
        np.uint32(seed),
        arguments,
    )


@partial(jax.jit, static_argnames=("mirror", "fields", "treatment"))
def _embed_batch(
    recognizer: Recognizer,
    batch: dict[str, Array],
    index: Array,
    seed: Array,
    arguments: Any,
    *,
    mirror: str,
    fields: tuple[str, ...],
    treatment: Treatment | None,
) -> Features:
    """Features of one batch; fields that are not asked for are None."""
    images, keypoints = to_unit_range(batch["image"]), batch.get("keypoints")
    if treatment is not None:
        rng = jax.random.fold_in(jax.random.key(seed), index)
        images, keypoints = treatment(rng, images, keypoints, arguments)
    if fields == ("embeddings",):
        features = Features(recognizer.embed(images, keypoints))
    else:
        features = recognizer.features(images, keypoints)
        features = Features(
            *(x if n in fields else None for n, x in features._asdict().items())
        )
    if "embeddings" not in fields:
        return features
    both = add_mirrored(
        features.embeddings, recognizer, images, keypoints, mirror=mirror
    )
    return features._replace(embeddings=both)


def embed_mirrored(
    recognizer: Recognizer, images: Array, keypoints: Array | None, *, mirror: str
) -> Array:
    """Embeddings of faces with their mirror images; compiled by the caller.

    Args:
      recognizer, images, keypoints: of `Recognizer.embed`.
      mirror: of `embed`.
    """
    plain = recognizer.embed(images, keypoints)
    return add_mirrored(plain, recognizer, images, keypoints, mirror=mirror)


def add_mirrored(
    plain: Array,
    recognizer: Recognizer,
    images: Array,
    keypoints: Array | None,
    *,
    mirror: str,
) -> Array:
    """Embeddings of faces, joined with those of their mirror images.

    Args:
      plain: float32 [B, D], of the faces as they are.
      recognizer, images, keypoints: that it came from.
      mirror: of `embed`.
    """
    if mirror == "none":
        return plain
    flipped = recognizer.embed(*mirror_faces(images, keypoints))
    if mirror == "sum":
        return plain + flipped
    return jnp.concatenate([plain, flipped], axis=-1)


def mirror_faces(images: Array, keypoints: Array | None) -> tuple[Array, Array | None]:
    """Mirror images [B, H, W, 3] of faces, and their keypoints [B, 5, 2] or None.

    Raises: ValueError: other than five keypoints, of which it is not known which change
      sides.
    """
    if keypoints is None:
        return images[:, :, ::-1], None
    if keypoints.shape[1] != len(FACE_MIRROR):
        raise ValueError(
            f"mirror_faces: keypoints must be [B, {len(FACE_MIRROR)}, 2], so that it "
            f"is known which change sides; got {keypoints.shape}."
        )
    mirrored = keypoints[:, np.array(FACE_MIRROR)] * jnp.array([-1, 1])
    return images[:, :, ::-1], mirrored + jnp.array([1, 0])


def place(tree: Any, mesh: Mesh | None = None) -> Any:
    """Replicate the arrays of a tree that are not on all devices of a mesh."""
    mesh = data_mesh() if mesh is None else mesh
    devices = set(mesh.devices.flat)

    def put(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and leaf.sharding.device_set == devices:
            return leaf
        return jax.device_put(leaf, replicated(mesh))

    return jax.tree.map(put, tree)


def map_rows(
    function: Callable[[dict[str, Array], Array], Any],
    rows: Sequence,
    *,
    batch_size: int,
    mesh: Mesh,
) -> Any:
    """Apply a function to all rows, each process its share; the last batch is padded.

    Args and Raises: as `stream_rows`.
    Returns: the trees of `stream_rows`, joined to NumPy arrays [N, ...].
    """
    parts = stream_rows(function, rows, batch_size=batch_size, mesh=mesh)
    return jax.tree.map(lambda *part: np.concatenate(part), *parts)


def stream_rows(
    function: Callable[[dict[str, Array], Array], Any],
    rows: Sequence,
    *,
    batch_size: int,
    mesh: Mesh,
) -> Iterator[Any]:
    """Apply a function to all rows, a batch at a time; memory does not grow with N.

    Batches are read while the devices work on those before.

    Args:
      function: compiled; (batch on the devices, its number int32 []) -> a tree of
        arrays [B, ...].
      rows: N dicts of arrays.
      batch_size: rows of the global batch.
      mesh: the devices.
    Returns: trees of NumPy arrays [b, ...] of all rows in order, in every process.
    Raises: ValueError: as `check_batch_size`; no rows.
    """
    check_batch_size(batch_size, 1, mesh, field="batch_size")
    batches = eval_batches(
        rows,
        batch_size=batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    return _stream(function, batches, len(rows), batch_size, mesh)


def _stream(
    function: Callable[[dict[str, Array], Array], Any],
    batches: Iterator[dict[str, np.ndarray]],
    count: int,
    batch_size: int,
    mesh: Mesh,
) -> Iterator[Any]:
    """The devices stay busy, and their memory bounded."""
    gather = _gather(mesh)
    running: collections.deque = collections.deque()
    left = count

    def oldest() -> Any:
        nonlocal left
        own = min(batch_size, left)
        left -= own
        return jax.tree.map(lambda x: x[:own], jax.device_get(running.popleft()))

    for index, batch in enumerate(batches):
        running.append(gather(function(put_batch(batch, mesh), jnp.int32(index))))
        if len(running) > _IN_FLIGHT:
            yield oldest()
    while running:
        yield oldest()


@cache
def _gather(mesh: Mesh) -> Callable[[Any], Any]:
    return jax.jit(lambda x: x, out_shardings=replicated(mesh))
