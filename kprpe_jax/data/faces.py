"""Rows of an imported face data set, decoded: what the loader reads."""

from collections.abc import Sequence

import numpy as np

from kprpe_jax.data.importers.decode import decode_rgb


class Faces(Sequence):
    """Decoded rows with random access, for `loader.train_batches` and `eval_batches`.

    A row is image uint8 [S, S, 3], label int32, keypoints float32 [5, 2] (zeros where
    unknown), has_keypoints bool and id int32, its number.

    Args:
      source: rows of an imported data set (`store.open_split`).
      image_size: S; the images must have it, resampling is a matter of alignment.
    """

    def __init__(self, source: Sequence, *, image_size: int):
        self._source = source
        self._shape = (image_size, image_size, 3)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        """Return one row; raises ValueError if its image has another size."""
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, np.ndarray]]:
        """Return several rows with one read per shard."""
        encoded = self._source.__getitems__(rows)
        return [self._decode(row, e) for row, e in zip(rows, encoded, strict=True)]

    def _decode(self, row: int, encoded: dict[str, np.ndarray]) -> dict:
        image = decode_rgb(encoded["image"].item())
        if image.shape != self._shape:
            raise ValueError(
                f"Faces: images must be {self._shape[0]} x {self._shape[1]} pixels; "
                f"got {image.shape[0]} x {image.shape[1]} in row {row} (key "
                f"{encoded['key'].item().decode(errors='replace')!r}); align the data "
                "set or change data.image_size"
            )
        return {
            "image": image,
            "label": encoded["label"].astype(np.int32),
            "keypoints": encoded["keypoints"],
            "has_keypoints": encoded["has_keypoints"],
            "id": np.int32(row),
        }


def read_labels(source: Sequence) -> np.ndarray:
    """Labels int32 [N] of all rows, for `loader.balanced_rows`; images stay encoded."""
    labels = []
    for start in range(0, len(source), 4096):
        rows = source.__getitems__(range(start, min(start + 4096, len(source))))
        labels += [row["label"] for row in rows]
    return np.asarray(labels, np.int32)
