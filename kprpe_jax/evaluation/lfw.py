"""Labeled Faces in the Wild: 6,000 pairs in ten folds, from the archive to numbers."""

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kprpe_jax.data.importers.decode import decode_rgb
from kprpe_jax.data.importers.record import Record
from kprpe_jax.data.importers.tar_images import open_tar_images
from kprpe_jax.evaluation.roc import (
    TarAtFar,
    area_under_curve,
    equal_error_rate,
    roc_curve,
    tar_at_far,
)
from kprpe_jax.evaluation.scores import pair_distance
from kprpe_jax.evaluation.verification import (
    FoldAccuracy,
    centered_distances,
    fold_accuracy,
)


class LfwPairs(NamedTuple):
    """The pairs of `pairs.txt`, fold after fold.

    Attributes:
      names: of all images, such as `Abel_Pacheco/Abel_Pacheco_0001.jpg`.
      first, second: int [P], rows of `names`.
      same: bool [P].
      num_folds: F.
    """

    names: list[str]
    first: np.ndarray
    second: np.ndarray
    same: np.ndarray
    num_folds: int


def read_lfw_pairs(path: str | os.PathLike) -> LfwPairs:
    """Read the official list.

    The first line is the number of folds and of pairs of each kind per fold; then
    `name i j` is a pair of one person, `name i other j` one of two.

    Raises: ValueError: names the line that is of another form, or too few lines.
    """
    with open(path, encoding="utf-8") as file:
        (number, *head), *rows = [line.split() for line in file if line.strip()]
    folds, per_kind = (int(number), int(head[0])) if head else (1, int(number))
    if len(rows) != 2 * folds * per_kind:
        raise ValueError(
            f"read_lfw_pairs: {os.fspath(path)} must have {2 * folds * per_kind} pairs "
            f"as its first line says; got {len(rows)}; fetch the whole list."
        )
    rank: dict[str, int] = {}
    sides, same = [], []
    for line, row in enumerate(rows, 2):
        if len(row) not in (3, 4) or not row[1].isdigit() or not row[-1].isdigit():
            raise ValueError(
                f"read_lfw_pairs: pair line {line} of {os.fspath(path)} must be `name "
                f"i j` or `name i other j`; got {' '.join(row)!r}; repair the line."
            )
        people = (row[0], row[0] if len(row) == 3 else row[2])
        images = zip(people, (row[1], row[-1]), strict=True)
        files = [f"{name}/{name}_{int(index):04d}.jpg" for name, index in images]
        sides.append([rank.setdefault(name, len(rank)) for name in files])
        same.append(len(row) == 3)
    first, second = np.array(sides).T
    return LfwPairs(list(rank), first, second, np.array(same), folds)


def read_archive(path: str | os.PathLike, names: Sequence[str]) -> list[bytes]:
    """The encoded images of these names, in their order.

    Raises: ValueError: names the first images that the archive does not hold whole.
    """
    wanted = dict.fromkeys(names, b"")
    for entry in open_tar_images(path).read(0):
        if isinstance(entry, Record) and entry.key.removeprefix("./") in wanted:
            wanted[entry.key.removeprefix("./")] = entry.image
    missing = [name for name, image in wanted.items() if not image]
    if missing:
        raise ValueError(
            f"read_archive: {os.fspath(path)} must hold all {len(wanted)} images of "
            f"the protocol; got none for {len(missing)}, such as "
            f"{', '.join(missing[:3])}; "
            "fetch the whole archive."
        )
    return list(wanted.values())


def embed_mirrored(
    embed: Callable[[Array], Array],
    encoded: Sequence[bytes],
    *,
    image_size: tuple[int, int],
    batch_size: int = 64,
) -> tuple[np.ndarray, np.ndarray]:
    """Embed images and their mirror images.

    Args:
      embed: float32 [B, H, W, 3] in [-1, 1] -> [B, D]; compiled here, for one size.
      encoded: N images, of one size, at least as large as `image_size`.
      image_size: (height, width), cut from the middle.
      batch_size: B.
    Returns: float32 [N, D] twice: of the images, of their mirror images.
    """
    height, width = image_size

    @jax.jit
    def both(images: Array) -> tuple[Array, Array]:
        images = images.astype(jnp.float32) / 127.5 - 1.0
        return embed(images), embed(images[:, :, ::-1])

    plain, mirrored = [], []
    for start in range(0, len(encoded), batch_size):
        images = np.stack([decode_rgb(x) for x in encoded[start : start + batch_size]])
        top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
        images = images[:, top : top + height, left : left + width]
        short = batch_size - len(images)
        padded = np.pad(images, ((0, short), (0, 0), (0, 0), (0, 0)))
        outputs = both(padded)
        plain.append(np.asarray(outputs[0])[: len(images)])
        mirrored.append(np.asarray(outputs[1])[: len(images)])
    return np.concatenate(plain), np.concatenate(mirrored)


class LfwResult(NamedTuple):
    """Numbers of the protocol.

    Attributes:
      accuracy: by cosine.
      centered: after subtracting the mean of the training folds.
      tar: at FAR 1e-3, 1e-2 and 1e-1, by cosine over all pairs.
      eer, auc: of the same curve.
    """

    accuracy: FoldAccuracy
    centered: FoldAccuracy
    tar: TarAtFar
    eer: float
    auc: float


def lfw_result(embeddings: np.ndarray, pairs: LfwPairs) -> LfwResult:
    """Verify all pairs.

    Args:
      embeddings: [N, D], row n of `pairs.names[n]`: images and mirror images side by
        side or summed.
      pairs: from `read_lfw_pairs`.
    Raises: ValueError: an embedding that is not finite.
    """
    first, second = embeddings[pairs.first], embeddings[pairs.second]
    folds = dict(num_folds=pairs.num_folds)
    distance = np.asarray(pair_distance(first, second))
    roc = roc_curve(-distance, pairs.same)
    return LfwResult(
        accuracy=fold_accuracy(distance, pairs.same, **folds),
        centered=fold_accuracy(
            centered_distances(first, second, **folds), pairs.same, **folds
        ),
        tar=tar_at_far(roc, (1e-3, 1e-2, 1e-1)),
        eer=equal_error_rate(roc),
        auc=area_under_curve(roc),
    )
