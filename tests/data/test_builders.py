"""What the builders write: rows, order, split, keypoints; and bad source files."""

import struct

import numpy as np
import pytest
from sklearn.datasets import load_digits

from kprpe_jax.data import builders, store
from kprpe_jax.data.idx import read_idx
from kprpe_jax.data.importers.idx_digits import open_idx_digits
from kprpe_jax.data.prepare import prepare


def rows_of(path, name, split):
    source = store.open_split(path, name, split)
    return [source[i] for i in range(len(source))]


def slow_box(image):
    """Box of pixels brighter than 32, by looking at each."""
    ink = [(r, c) for r, c in np.ndindex(28, 28) if image[r, c, 0] > 32]
    top, bottom = min(r for r, _ in ink), max(r for r, _ in ink) + 1
    left, right = min(c for _, c in ink), max(c for _, c in ink) + 1
    x, y = (left + right) / 2, (top + bottom) / 2
    box = [(left, top), (right, top), (x, y), (left, bottom), (right, bottom)]
    return np.array(box) / 28


def test_digits_rows_have_the_declared_form_and_boxes(digits_dir):
    rows = rows_of(digits_dir, "digits", "test")
    assert [int(r["id"]) for r in rows] == list(range(360))
    for row in rows[::40]:
        assert row["image"].shape == (28, 28, 1)
        assert row["image"].dtype == np.uint8
        assert row["label"].dtype == row["id"].dtype == np.int32
        assert row["keypoints"].dtype == np.float32
        np.testing.assert_allclose(row["keypoints"], slow_box(row["image"]), atol=1e-6)


def test_digits_split_is_complete_disjoint_and_stratified(digits_dir):
    train, test = (rows_of(digits_dir, "digits", s) for s in ("train", "test"))
    assert (len(train), len(test)) == (1437, 360)
    digits = load_digits()
    want = sorted(
        (int(label), image.tobytes())
        for image, label in zip(
            builders.enlarge(digits.images), digits.target, strict=True
        )
    )
    got = sorted((int(r["label"]), r["image"].tobytes()) for r in train + test)
    assert got == want
    counts = np.bincount([r["label"] for r in test])
    assert np.abs(counts - np.bincount(digits.target) / 5).max() < 1


def test_enlarge_is_bilinear_between_pixel_centers(rng):
    small = rng.integers(0, 17, size=(2, 8, 8)).astype(float)
    large = builders.enlarge(small)
    assert not large[:, :4].any()
    assert not large[:, :, 24:].any()
    for row, col in [(0, 0), (3, 17), (11, 6), (19, 19)]:
        y, x = (np.clip((i + 0.5) * 0.4 - 0.5, 0, 7) for i in (row, col))
        y0, x0 = min(int(y), 6), min(int(x), 6)
        fy, fx = y - y0, x - x0
        patch = small[:, y0 : y0 + 2, x0 : x0 + 2]
        want = np.array([1 - fy, fy]) @ patch @ np.array([1 - fx, fx]) * 255 / 16
        np.testing.assert_allclose(large[:, row + 4, col + 4], want, atol=0.51)
    assert builders.enlarge(np.full((1, 8, 8), 16.0))[0, 4:24, 4:24].min() == 255


def test_preparing_twice_writes_the_same_bytes(digits_dir, tmp_path):
    prepare("digits", tmp_path)
    name = "digits/1.0.0/digits-train.array_record-00000-of-00001"
    assert (tmp_path / name).read_bytes() == (digits_dir / name).read_bytes()


def test_mnist_keeps_rows_in_file_order(idx_dir, tmp_path):
    open_idx_digits(idx_dir).write(name="mnist", data_dir=tmp_path)
    for split, prefix, count in (("train", "train", 23), ("test", "t10k", 7)):
        rows = rows_of(tmp_path, "mnist", split)
        assert len(rows) == count
        images = read_idx(idx_dir / f"{prefix}-images-idx3-ubyte.gz", ndim=3)
        labels = read_idx(idx_dir / f"{prefix}-labels-idx1-ubyte", ndim=1)
        for i, row in enumerate(rows):
            np.testing.assert_array_equal(row["image"][..., 0], images[i])
            assert (row["label"], row["id"]) == (labels[i], i)
            np.testing.assert_allclose(
                row["keypoints"], slow_box(row["image"]), atol=1e-6
            )


def write_labels(path, labels):
    path.write_bytes(struct.pack(">2I", 0x801, len(labels)) + bytes(labels))


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda d: (d / "t10k-labels-idx1-ubyte").unlink(), "t10k-labels.*must exist"),
        (
            lambda d: write_labels(d / "t10k-labels-idx1-ubyte", [1] * 6),
            "as many rows as one another; got 7 and 6",
        ),
        (
            lambda d: write_labels(
                d / "t10k-labels-idx1-ubyte", [1, 2, 10, 1, 1, 1, 1]
            ),
            r"labels in .*t10k-labels-idx1-ubyte must be 0\.\.9; got 10 in row 2",
        ),
        (
            lambda d: (d / "train-images-idx3-ubyte").write_bytes(
                struct.pack(">4I", 0x803, 23, 2, 3) + bytes(23 * 6)
            ),
            "must hold 28 x 28 images; got 2 x 3",
        ),
    ],
)
def test_bad_sources_are_named_and_leave_nothing(idx_dir, tmp_path, damage, match):
    damage(idx_dir)
    with pytest.raises(ValueError, match=match):
        open_idx_digits(idx_dir).write(name="mnist", data_dir=tmp_path / "data")
    assert not list((tmp_path / "data").glob("*"))
