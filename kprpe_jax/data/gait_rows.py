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
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

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


class GaitRows(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes sequences; people are numbered in order of appearance, in each split.

    Args:
      size: (H, W) of all silhouettes.
      splits: name -> function that yields the split's sequences.
      description: of the data set.
      metadata: JSON values that are kept with it; what is put there while the sequences
        are read is kept, too.
      **kwargs: of the TFDS builder.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self,
        *,
        size: tuple[int, int],
        splits: Mapping[str, Callable[[], Iterator[GaitSequence]]],
        description: str,
        metadata: dict[str, Any],
        **kwargs,
    ):
        self._size, self._splits = tuple(size), splits
        self._text = description
        self._metadata = tfds.core.MetadataDict(metadata)
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self._text,
            features=features(self._size),
            metadata=self._metadata,
            disable_shuffling=True,  # the loader shuffles
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        self._metadata["index"] = {}
        return {name: self._rows(name, read()) for name, read in self._splits.items()}

    def _generate_examples(self):
        raise NotImplementedError("the rows come from _split_generators")

    def _rows(self, split: str, sequences: Iterator[GaitSequence]):
        people: dict[str, int] = {}
        index = {"labels": [], "frames": [], "probes": []}
        self._metadata["index"][split] = index
        for number, sequence in enumerate(sequences):
            label = people.setdefault(sequence.identity, len(people))
            index["labels"].append(label)
            index["frames"].append(len(sequence.silhouettes))
            index["probes"].append(bool(sequence.is_probe))
            known = sequence.joint_mask
            yield (
                number,
                {
                    **sequence._asdict(),
                    "keypoints": np.where(known[..., None], sequence.keypoints, 0),
                    "label": label,
                    "id": number,
                },
            )


def features(size: tuple[int, int]) -> tfds.features.FeaturesDict:
    """Declare the rows, see the head of this file."""
    zlib = tfds.features.Encoding.ZLIB
    return tfds.features.FeaturesDict(
        {
            "silhouettes": tfds.features.Tensor(
                shape=(None, *size), dtype=np.uint8, encoding=zlib
            ),
            "keypoints": tfds.features.Tensor(
                shape=(None, NUM_JOINTS, 2), dtype=np.float32, encoding=zlib
            ),
            "joint_mask": tfds.features.Tensor(
                shape=(None, NUM_JOINTS), dtype=np.bool_, encoding=zlib
            ),
            "label": np.int32,
            "identity": tfds.features.Text(),
            "key": tfds.features.Text(),
            "is_probe": np.bool_,
            "id": np.int32,
        }
    )
