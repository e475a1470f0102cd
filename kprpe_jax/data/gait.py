"""Sequences as the loader reads them: clips to train on, whole ones to test on.

A batch has silhouettes uint8 [B, T, H, W], keypoints float32 [B, T, 17, 2], joint_mask
bool [B, T, 17], label int32 [B] and id int32 [B]; padded ones have frame_mask bool
[B, T], too.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from kprpe_jax.data.check import KEYPOINT_RANGE
from kprpe_jax.data.gait_rows import NUM_JOINTS
from kprpe_jax.data.rows import RandomAccessRows
from kprpe_jax.data.store import open_builder, open_split

FIELDS = ("silhouettes", "keypoints", "joint_mask")


class GaitSplit(NamedTuple):
    """A split of a data set of sequences.

    Attributes:
      source: its rows (`gait_rows`), N of them.
      labels: int32 [N].
      frames: int32 [N], their lengths.
      probes: bool [N].
    """

    source: Sequence
    labels: np.ndarray
    frames: np.ndarray
    probes: np.ndarray


def open_gait(
    data_dir: str | os.PathLike, name: str, split: str, *, size: tuple[int, int]
) -> GaitSplit:
    """Open a split of a data set of sequences.

    Args:
      data_dir, name, split: of `store.open_split`; whole splits only.
      size: (H, W) that the silhouettes must have.
    Raises: ValueError: as `open_split`; not a data set of sequences; another size.
    """
    source = open_split(data_dir, name, split)
    info = open_builder(data_dir, name).info
    index = (info.metadata or {}).get("index", {}).get(split)
    if index is None or len(index["labels"]) != len(source):
        raise ValueError(
            f"open_gait: {name} must be a data set of gait sequences with the whole "
            f"split {split!r}; got one with {sorted(info.features)}; import it with "
            "kprpe-jax import gait"
        )
    stored = info.features["silhouettes"].shape[1:]
    if stored != tuple(size):
        raise ValueError(
            f"open_gait: silhouettes of {name} must be {size[0]} x {size[1]} pixels; "
            f"got {stored[0]} x {stored[1]}; change model.image_size, or import or "
            "synthesize the data set in this size"
        )
    return GaitSplit(
        source,
        np.array(index["labels"], np.int32),
        np.array(index["frames"], np.int32),
        np.array(index["probes"], bool),
    )


def sample_frames(
    length: int, count: int, *, skip: int, rng: np.random.Generator
) -> np.ndarray:
    """Choose frames for training: in order, from a window a little longer than needed.

    A window of count + skip frames is placed at random, and `skip` of its frames are
    left out at random. A sequence shorter than that is repeated first.

    Source: "fixed ordered" sampling of the official SwinGait configuration.
    Args:
      length: frames of the sequence, at least 1.
      count: frames wanted, at least 1.
      skip: at least 0.
      rng: of this visit to the sequence.
    Returns: int64 [count], 0 .. length - 1.
    """
    window = count + skip
    repeats = -(-window // length)
    start = rng.integers(length * repeats - window + 1)
    places = np.sort(rng.choice(window, count, replace=False))
    return (start + places) % length


class Clips(RandomAccessRows):
    """Clips of equal length, for `loader.train_batches` with `order.numbered`.

    Row numbers say which sequence is read and which visit it is: v = sequence + N *
    visit; every visit samples other frames, and the same ones in every run.

    Args:
      split: of which sequences.
      num_frames: T.
      skip: of `sample_frames`.
      seed: 0 <= seed < 2**32.
    """

    def __init__(self, split: GaitSplit, *, num_frames: int, skip: int, seed: int):
        self._split = split
        self._form = {"count": num_frames, "skip": skip}
        self._seed = seed

    def __len__(self) -> int:
        return len(self._split.labels)

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, np.ndarray]]:
        """Return several clips."""
        visits, places = np.array([divmod(int(row), len(self)) for row in rows]).T
        clips = []
        examples = self._split.source.__getitems__(places)
        for visit, example in zip(visits, examples, strict=True):
            rng = np.random.default_rng([self._seed, 3, visit])
            length = len(example["silhouettes"])
            chosen = sample_frames(length, rng=rng, **self._form)
            clips.append(_select(example, chosen))
        return clips


def clip_shapes(
    num_frames: int, size: tuple[int, int]
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a clip of `num_frames` silhouettes of size (H, W)."""
    return {
        "silhouettes": jax.ShapeDtypeStruct((num_frames, *size), np.uint8),
        "keypoints": jax.ShapeDtypeStruct((num_frames, NUM_JOINTS, 2), np.float32),
        "joint_mask": jax.ShapeDtypeStruct((num_frames, NUM_JOINTS), np.bool_),
        "label": jax.ShapeDtypeStruct((), np.int32),
    }


class WholeSequences(RandomAccessRows):
    """Sequences padded to one length, for `loader.eval_batches`.

    Args:
      split: of which sequences.
      rows: int [M], the sequences to show.
      num_frames: T; longer sequences keep T frames, evenly spaced; shorter ones are
        padded with empty frames that frame_mask leaves out.
    """

    def __init__(self, split: GaitSplit, rows: np.ndarray, *, num_frames: int):
        self._split, self._rows, self._num_frames = split, rows, num_frames

    def __len__(self) -> int:
        return len(self._rows)

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, np.ndarray]]:
        """Return several sequences."""
        rows = [int(self._rows[row]) for row in rows]
        return [self._pad(row) for row in self._split.source.__getitems__(rows)]

    def _pad(self, example: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        length, wanted = len(example["silhouettes"]), self._num_frames
        kept = min(length, wanted)
        row = _select(example, np.arange(kept) * length // kept)
        for name in FIELDS:
            ends = [(0, wanted - kept)] + [(0, 0)] * (row[name].ndim - 1)
            row[name] = np.pad(row[name], ends)
        return {**row, "frame_mask": np.arange(wanted) < kept}


def _select(example: dict[str, np.ndarray], frames: np.ndarray) -> dict:
    chosen = {name: example[name][frames] for name in FIELDS}
    return {**chosen, "label": example["label"], "id": example["id"]}


def check_clips(
    batch: dict[str, np.ndarray],
    *,
    num_classes: int,
    size: tuple[int, int],
    needs_joints: bool,
) -> None:
    """Raise unless a batch of clips is what the network was built for.

    Args:
      batch: see the head of this file.
      num_classes: labels must be 0 <= label < num_classes.
      size: (H, W).
      needs_joints: refuse a batch in which no joint is known at all.
    Raises: ValueError: silhouettes of another size or type; labels out of range; known
      joints that are not finite or further out than one frame; none known.
    """
    silhouettes, points = batch["silhouettes"], batch["keypoints"]
    known, ids, labels = batch["joint_mask"], batch["id"], batch["label"]
    if silhouettes.shape[2:] != tuple(size) or silhouettes.dtype != np.uint8:
        raise ValueError(
            f"check_clips: silhouettes must be uint8 [b, T, {size[0]}, {size[1]}]; got "
            f"{silhouettes.dtype} {list(silhouettes.shape)}; import the data set in "
            "this size or change model.image_size"
        )
    if points.shape != (*silhouettes.shape[:2], NUM_JOINTS, 2):
        raise ValueError(
            f"check_clips: keypoints must be [b, T, {NUM_JOINTS}, 2] for silhouettes "
            f"{list(silhouettes.shape)}; got {list(points.shape)}; import again"
        )
    bad = (labels < 0) | (labels >= num_classes)
    if bad.any():
        raise ValueError(
            f"check_clips: labels must be 0..{num_classes - 1}; got {labels[bad][0]} "
            f"in the sequence with id {ids[bad][0]}; set data.num_classes to the "
            "number of people"
        )
    low, high = KEYPOINT_RANGE
    far = ~((points >= low) & (points <= high)).all(-1) & known  # NaN is bad, too
    if far.any():
        place = np.unravel_index(far.argmax(), far.shape)
        raise ValueError(
            f"check_clips: known joints must be finite and within [{low:g}, {high:g}], "
            f"in fractions of the frame; got {points[place].tolist()} for joint "
            f"{place[2]} in the sequence with id {ids[place[0]]}; repair the joints or "
            "say that they are missing"
        )
    if needs_joints and not known.any():
        raise ValueError(
            "check_clips: position 'kprpe' needs joints; no sequence of the batch has "
            f"any, such as id {ids[0]}; import the data set with --joints, or choose "
            "the position table"
        )
