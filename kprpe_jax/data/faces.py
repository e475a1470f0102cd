"""Rows of an imported face data set, decoded: what the loader reads."""

import contextlib
import copy
import os
from collections.abc import Mapping, Sequence

import numpy as np

from kprpe_jax.data.aligned_faces import cut_face
from kprpe_jax.data.importers.decode import decode_rgb
from kprpe_jax.data.rows import ChosenRows, read_field, rows_of_identities
from kprpe_jax.data.store import open_split

LANDMARKS, LANDMARK_MASK = "landmarks", "landmark_mask"  # fields of imported tables


def open_faces(
    data_dir: str | os.PathLike,
    name: str,
    split: str,
    *,
    image_size: tuple[int, int] | None = None,
    identities: tuple[int, int] | None = None,
    points: str = "keypoints",
    needs_keypoints: bool = False,
) -> "FaceRows":
    """Open a split of an imported data set, or some of its people.

    Args:
      data_dir, name, split: of `store.open_split`.
      image_size: (height, width) that every image must have; None = that of the first
        that decodes.
      identities: (first, last): only rows whose label lies in first .. last - 1, and
        counted from 0 then; None = all rows. Every row is read once for it.
      points: field of the rows that is read as their keypoints: "landmarks" gives the
        84 of synthetic faces, or those of an imported table, instead of five.
      needs_keypoints: of `FaceRows`.
    Raises: ValueError: as `open_split`; a data set without encoded faces, without such
      points, or of which no image decodes; no such person.
    """
    source = open_split(data_dir, name, split)
    example = source[0]
    if "has_keypoints" not in example:
        raise ValueError(
            f"{name} must be a data set of imported faces; got one with "
            f"{sorted(example)}; import it with kprpe-jax import"
        )
    if points not in example:
        raise ValueError(
            f"points must be a field of {name}; got {points!r}, and its "
            f"rows have {sorted(example)}; choose keypoints"
        )
    rows, first = None, 0
    if identities is not None:
        rows = rows_of_identities(name, read_field(source, "label"), identities)
        first = identities[0]
    return FaceRows(
        source,
        image_size=image_size or _first_size(source, name),
        rows=rows,
        first_label=first,
        points=points,
        needs_keypoints=needs_keypoints,
    )


def _first_size(source: Sequence, name: str) -> tuple[int, int]:
    """(height, width) of the first image of a source that decodes."""
    for row in range(len(source)):
        with contextlib.suppress(ValueError):
            return decode_rgb(source[row]["image"].item()).shape[:2]
    raise ValueError(
        f"{name} must hold images; got {len(source)} that cannot be "
        "decoded; import it anew"
    )


class FaceRows(ChosenRows):
    """Decoded rows with random access, for `loader.train_batches` and `eval_batches`.

    A row is image uint8 [H, W, 3], label int32, keypoints float32 [K, 2] (zeros where
    unknown), has_keypoints bool, whether there are any, and id int32, its number in the
    source; of landmarks that may be missing one by one also keypoint_mask bool [K].

    Args:
      source: rows of an imported data set (`store.open_split`).
      image_size: (H, W) of the rows.
      rows, first_label: of `ChosenRows`.
      points: field of the source that becomes the keypoints, [K, 2].
      needs_keypoints: reading a row whose keypoints are not all known raises
        ValueError.
      share: cut the faces out of photos of any size, which all must have keypoints: as
        the detection (0), aligned (1) or in between (`aligned_faces.cut_face`). None:
        the images must have the size already.
    """

    def __init__(
        self,
        source: Sequence,
        *,
        image_size: tuple[int, int],
        rows: np.ndarray | None = None,
        first_label: int = 0,
        points: str = "keypoints",
        needs_keypoints: bool = False,
        share: float | None = None,
    ):
        super().__init__(source, rows=rows, first_label=first_label)
        self._shape = (*image_size, 3)
        self._points = points
        masked = points == LANDMARKS and LANDMARK_MASK in source[0]
        self._mask = LANDMARK_MASK if masked else None
        self._needs_keypoints = needs_keypoints
        self._share = share

    def cut(self, share: float) -> "FaceRows":
        """The same rows of photos of any size; `share` of the class."""
        changed = copy.copy(self)
        changed._share = share
        return changed

    def keys(self) -> list[str]:
        """Keys of all rows, the source's ids; images stay encoded."""
        return [key.decode(errors="surrogateescape") for key in self.field("key")]

    def has_keypoints(self) -> np.ndarray:
        """Whether all keypoints of a row are known, bool [N]; images stay encoded."""
        mask = self.keypoint_mask()
        return self.field("has_keypoints") if mask is None else mask.all(1)

    def keypoint_mask(self) -> np.ndarray | None:
        """Which keypoints of a row are known, bool [N, K]; None = all or none."""
        if self._mask is None or not len(self._source):
            return None
        return self.field(self._mask)

    def readable(self) -> np.ndarray:
        """Whether a row can be read, bool [N]; decodes every image."""
        found = np.zeros(len(self), bool)
        for row in range(len(self)):
            with contextlib.suppress(ValueError):
                self[row]
                found[row] = True
        return found

    def _show(self, number: int, row: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Decode a row.

        Raises: ValueError: its image has another size, or keypoints are needed that it
          does not have.
        """
        key = row["key"].item().decode(errors="replace")
        mask = None if self._mask is None else row[self._mask]
        known = row["has_keypoints"] if mask is None else mask.all()
        if (self._needs_keypoints or self._share is not None) and not known:
            raise ValueError(
                "every image must have keypoints where a network reads them "
                f"or images are aligned by them; got none in row {number} (key {key!r})"
                "; import the data set with --landmarks or --detector"
            )
        image, keypoints = decode_rgb(row["image"].item()), row[self._points]
        if self._share is not None:
            image, keypoints = cut_face(image, keypoints, self._shape[:2], self._share)
        if image.shape != self._shape:
            raise ValueError(
                f"images must be {self._shape[0]} x {self._shape[1]} pixels; "
                f"got {image.shape[0]} x {image.shape[1]} in row {number} (key {key!r})"
                "; align the data set or change data.image_shape"
            )
        return {
            "image": image,
            "label": self._counted(row["label"]),
            "keypoints": keypoints,
            "has_keypoints": known if mask is None else mask.any(),
            "id": np.int32(number),
            **({} if mask is None else {"keypoint_mask": mask}),
        }


def landmarks_of(row: Mapping[str, np.ndarray], points: str) -> np.ndarray:
    """The keypoints of a row of a source, [K, 2], NaN where they are not known.

    Args:
      row: of an imported data set, as it is stored.
      points: the field, as `open_faces` takes it.
    """
    known = row["has_keypoints"]
    if points == LANDMARKS:
        known = row.get(LANDMARK_MASK, known)
    return np.where(np.asarray(known)[..., None], row[points], np.float32(np.nan))


def check_keypoints(name: str, known: np.ndarray) -> None:
    """Refuse a data set without all keypoints before any image is read.

    Args:
      name: of the data set.
      known: bool [N], of all images that will be read.
    Raises: ValueError: some are not known.
    """
    if not known.all():
        raise ValueError(
            f"every image that is read of {name} must have keypoints "
            "where a network or a template's weights need them or images are aligned "
            f"by them; got {(~known).sum()} of {len(known)} images without; fill them "
            "by `kprpe-jax import prepared` with --detector dfa_mobilenet025:FILE "
            "--min-score 0, which detects some in every image"
        )
