"""TFDS data sets of digits, prepared from local files without TensorFlow.

Every row has the same four features:
  image: uint8 [28, 28, 1], 0..255, bright ink on black.
  label: int32, 0..9.
  keypoints: float32 [5, 2], corners and center of the ink's box
    (`keypoints.box_keypoints`: ink is brighter than 32 of 255; (x, y) in 0..1 of
    the 28-pixel frame, box edges are the outer edges of the pixels).
  id: int32, the row's number in its split; rows are stored in this order.
"""

import os
from collections.abc import Iterator
from functools import partial

import numpy as np
import tensorflow_datasets as tfds
import tqdm

from kprpe_jax.data import idx, keypoints
from kprpe_jax.data.prepare import RowsBuilder

NUM_CLASSES = 10
_FRAME = 28  # pixels, MNIST's image size
_BORDER = 4  # MNIST's black border around the 20 x 20 digit

_FEATURES = {
    # As bytes: a list of integers takes longer to parse than to read.
    "image": tfds.features.Tensor(
        shape=(_FRAME, _FRAME, 1),
        dtype=np.uint8,
        encoding=tfds.features.Encoding.BYTES,
    ),
    "label": np.int32,
    "keypoints": tfds.features.Tensor(shape=(5, 2), dtype=np.float32),
    "id": np.int32,
}
_MNIST_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


class Digits(RowsBuilder, skip_registration=True):
    """The 1797 handwritten 8 x 8 digits that ship inside scikit-learn.

    Each image is enlarged bilinearly to 20 x 20 pixels, rescaled from 0..16 to
    0..255 and padded by 4 black pixels, so that it has MNIST's form. Split: with
    the rows sorted by class (stable), every fifth is a test row. That gives 1437
    training and 360 test rows, and every class its share within one row.
    """

    def __init__(self, **kwargs):
        # Imported here: reading a prepared data set needs no scikit-learn.
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = enlarge(digits.images)
        by_class = np.argsort(digits.target, kind="stable")
        is_test = np.zeros(len(images), bool)
        is_test[by_class[::5]] = True
        rows = {"train": ~is_test, "test": is_test}
        super().__init__(
            description="Handwritten digits of scikit-learn in MNIST's form.",
            features=_FEATURES,
            splits={
                split: partial(_rows, images[chosen], digits.target[chosen])
                for split, chosen in rows.items()
            },
            **kwargs,
        )


class Mnist(RowsBuilder, skip_registration=True):
    """MNIST, or a data set of its form, from four IDX files in one folder.

    The files are those of MNIST: train-images-idx3-ubyte, train-labels-idx1-ubyte,
    t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte, each plain or with .gz.

    Args:
      idx_dir: the folder.
      **kwargs: of the TFDS builder.
    """

    def __init__(self, *, idx_dir: str | os.PathLike, **kwargs):
        # Both splits are read and checked before the first row is written.
        arrays = {split: read_mnist(idx_dir, split) for split in _MNIST_FILES}
        super().__init__(
            description="Handwritten digits read from IDX files.",
            features=_FEATURES,
            splits={split: partial(_rows, *rows) for split, rows in arrays.items()},
            **kwargs,
        )


def enlarge(images: np.ndarray) -> np.ndarray:
    """Enlarge the 8 x 8 digits to MNIST's form.

    Args:
      images: [N, 8, 8], 0..16.
    Returns: uint8 [N, 28, 28], 0..255.
    """
    size = _FRAME - 2 * _BORDER
    # Pixel center i of the large image falls on (i + 0.5) * 8 / 20 - 0.5.
    place = np.clip((np.arange(size) + 0.5) * 8 / size - 0.5, 0, 7)
    grid = np.arange(8)
    weight = np.maximum(0, 1 - np.abs(place[:, None] - grid))  # [20, 8]
    large = np.einsum("yr,nrc,xc->nyx", weight, images * (255 / 16), weight)
    border = [(0, 0), (_BORDER, _BORDER), (_BORDER, _BORDER)]
    return np.pad(np.rint(large).astype(np.uint8), border)


def read_mnist(idx_dir: str | os.PathLike, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Read one split of MNIST's IDX files and check that its parts fit.

    Args:
      idx_dir: folder of the files, plain or with .gz.
      split: "train" or "test".
    Returns: images uint8 [N, 28, 28] and labels uint8 [N].
    Raises: ValueError: a missing or bad file, another image size, labels of
      another number or above 9.
    """
    image_path, label_path = (_find(idx_dir, name) for name in _MNIST_FILES[split])
    images = idx.read_idx(image_path, ndim=3)
    labels = idx.read_idx(label_path, ndim=1)
    if images.shape[1:] != (_FRAME, _FRAME):
        raise ValueError(
            f"read_mnist: {image_path} must hold {_FRAME} x {_FRAME} images; got "
            f"{images.shape[1]} x {images.shape[2]}; use files of MNIST's form"
        )
    if len(images) != len(labels):
        raise ValueError(
            f"read_mnist: {image_path} and {label_path} must have as many rows as one "
            f"another; got {len(images)} and {len(labels)}; fetch both again"
        )
    if (labels >= NUM_CLASSES).any():
        row = int(np.argmax(labels >= NUM_CLASSES))
        raise ValueError(
            f"read_mnist: labels in {label_path} must be 0..{NUM_CLASSES - 1}; got "
            f"{labels[row]} in row {row}; use files of MNIST's form"
        )
    return images, labels


def _find(idx_dir: str | os.PathLike, name: str) -> str:
    for candidate in (name, name + ".gz"):
        path = os.path.join(idx_dir, candidate)
        if os.path.isfile(path):
            return path
    found = sorted(os.listdir(idx_dir))[:8] if os.path.isdir(idx_dir) else None
    raise ValueError(
        f"read_mnist: {os.path.join(idx_dir, name)} (or .gz) must exist; the folder "
        + ("does not exist" if found is None else f"holds {found or 'nothing'}")
        + "; set idx_dir to the folder with MNIST's four IDX files"
    )


def _rows(images: np.ndarray, labels: np.ndarray) -> Iterator[dict]:
    """Yield the rows of uint8 [N, 28, 28] images."""
    images = images[..., None]
    points = keypoints.box_keypoints(images)
    rows = zip(images, labels, points, strict=True)
    rows = tqdm.tqdm(rows, total=len(images), unit=" images", disable=None)
    for number, (image, label, box) in enumerate(rows):
        label, number = np.int32(label), np.int32(number)
        yield {"image": image, "label": label, "keypoints": box, "id": number}
