"""Images and labels in one .npz archive."""

import numpy as np
import pytest

from kprpe_jax.data.importers.arrays import open_arrays
from kprpe_jax.data.importers.decode import decode_rgb
from tests.data.importers.sources import SHARED, needs_shared, read_all


@needs_shared
def test_orl_comes_back_exactly():
    path = SHARED / "orl_faces" / "orl_faces.npz"
    source = open_arrays(path, label_array="subject")
    records, bad = read_all(source, 390)
    assert (source.count, len(records), bad) == (400, 10, [])
    with np.load(path) as archive:
        images, subjects = archive["images"][390:], archive["subject"][390:]
    for number, record in enumerate(records):
        image = decode_rgb(record.image)
        np.testing.assert_array_equal(image, images[number][..., None].repeat(3, -1))
        assert (record.key, record.identity) == (
            f"{390 + number:07d}",
            subjects[number],
        )


def test_color(tmp_path, rng):
    images = rng.integers(0, 256, (3, 6, 5, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=[2, 0, 2])
    records, _ = read_all(open_arrays(tmp_path / "a.npz"))
    assert [record.identity for record in records] == [2, 0, 2]
    for record, image in zip(records, images, strict=True):
        np.testing.assert_array_equal(decode_rgb(record.image), image)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            {"images": np.zeros((3, 4, 4))},
            r"uint8 \[N, H, W\].*got float64 \[3, 4, 4\]",
        ),
        ({"images": np.zeros((3, 4, 4, 2), np.uint8)}, r"got uint8 \[3, 4, 4, 2\]"),
        ({"labels": np.zeros(2, int)}, r"numbers >= 0 \[3\]; got int64 \[2\]"),
        ({"labels": np.array([0, 1, -1])}, "numbers >= 0"),
        ({"labels": np.array(["a", "b", "c"])}, "numbers >= 0 .*got <U1"),
        ({"labels": np.array([None] * 3)}, "must be an .npz with the arrays .*pickle"),
    ],
)
def test_other_arrays(tmp_path, change, match):
    arrays = {"images": np.zeros((3, 4, 4), np.uint8), "labels": np.arange(3)} | change
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=match):
        open_arrays(tmp_path / "a.npz")


def test_absent_truncated_and_unnamed(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((1, 4, 4), np.uint8), subject=[1])
    with pytest.raises(
        ValueError,
        match="got the archive has no array labels; .*--image-array and --label-ar",
    ):
        open_arrays(tmp_path / "a.npz")
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content[:-40])
    with pytest.raises(ValueError, match="must be an .npz"):
        open_arrays(tmp_path / "a.npz", label_array="subject")
    with pytest.raises(ValueError, match="must be an .npz .*got .*No such file"):
        open_arrays(tmp_path / "no.npz")


def test_an_unknown_compression(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, images=np.zeros((1, 4, 4), np.uint8), labels=[1])
    data = bytearray(path.read_bytes())
    central = data.index(b"PK\x01\x02")
    data[8:10] = data[central + 10 : central + 12] = b"\x63\0"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="must be an .npz .*compression"):
        open_arrays(path)
