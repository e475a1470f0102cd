"""Sequences of silhouettes and joints on disk, as a TFDS data set.

A row is a sequence:
  silhouettes: uint8 [T, H, W], 0..255, bright = person; T differs from row to row.
  keypoints: float32 [T, 17, 2], COCO's joints, fractions of width and height; they may
    lie outside of the frame. 0 where joint_mask is False.
  joint_mask: bool [T, 17], False = missing.
  label: int32, number of the person in its split.
  identity, key: text, the person and the sequence as their source calls them.
  is_probe: bool; in a test split, whether it is searched for or searched in.
  id: int32, the row's number in its split.

The metadata hold the labels, lengths and probes of all rows (`index`), so that samplers
need not read the silhouettes, and the importer's report.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from kprpe_jax.data.prepare import RowsBuilder

NUM_JOINTS = 17


class GaitSequence(NamedTuple):
    """One row before it is written.

    Attributes:
      key: unique in its split.
      identity: name of the person.
      silhouettes: uint8 [T, H, W], T at least 1.
      keypoints: float32 [T, 17, 2].
      joint_mask: bool [T, 17].
      is_probe: see the head of this file.
    """

    key: str
    identity: str
    silhouettes: np.ndarray
    keypoints: np.ndarray
    joint_mask: np.ndarray
    is_probe: bool


class GaitRows(RowsBuilder, skip_registration=True):
    """Writes sequences; people are numbered in order of appearance, in each split.

    Args:
      size: (H, W) of all silhouettes.
      splits: name -> function that yields the split's sequences.
      description, metadata, **kwargs: of `RowsBuilder`.
    """

    def __init__(
        self,
        *,
        size: tuple[int, int],
        splits: Mapping[str, Callable[[], Iterator[GaitSequence]]],
        metadata: Mapping[str, Any],
        **kwargs,
    ):
        index = {split: {"labels": [], "frames": [], "probes": []} for split in splits}
        super().__init__(
            features=_features(size),
            splits={
                split: partial(_rows, read, index[split])
                for split, read in splits.items()
            },
            metadata={**metadata, "index": index},
            **kwargs,
        )


def _rows(
    read: Callable[[], Iterator[GaitSequence]], index: dict[str, list]
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a split and note them in its index."""
    people: dict[str, int] = {}
    for number, sequence in enumerate(read()):
        label = people.setdefault(sequence.identity, len(people))
        index["labels"].append(label)
        index["frames"].append(len(sequence.silhouettes))
        index["probes"].append(bool(sequence.is_probe))
        known = sequence.joint_mask
        yield {
            **sequence._asdict(),
            "keypoints": np.where(known[..., None], sequence.keypoints, 0),
            "label": label,
            "id": number,
        }


def _features(size: tuple[int, int]) -> dict[str, Any]:
    """Declare the rows, see the head of this file."""

    def frames(dtype: type, *shape: int) -> tfds.features.Tensor:
        zlib = tfds.features.Encoding.ZLIB
        return tfds.features.Tensor(shape=(None, *shape), dtype=dtype, encoding=zlib)

    return {
        "silhouettes": frames(np.uint8, *size),
        "keypoints": frames(np.float32, NUM_JOINTS, 2),
        "joint_mask": frames(np.bool_, NUM_JOINTS),
        "label": np.int32,
        "identity": tfds.features.Text(),
        "key": tfds.features.Text(),
        "is_probe": np.bool_,
        "id": np.int32,
    }
