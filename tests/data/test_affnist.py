"""affNIST's .mat structure, written here, and files of another structure."""

import numpy as np
import pytest
import scipy.io

from kprpe_jax.data.affnist import read_affnist
from kprpe_jax.data.keypoints import box_keypoints


def write(path, images, labels, **changed):
    """Store images [N, 40, 40] column by column, as Matlab would."""
    columns = np.stack([image.flatten(order="F") for image in images], axis=1)
    fields = {"image": columns, "label_int": labels[None]} | changed
    scipy.io.savemat(path, {"affNISTdata": fields})


@pytest.fixture
def images(rng):
    images = np.zeros((3, 40, 40), np.uint8)
    for i, image in enumerate(images):
        image[5 + i : 20, 7 : 30 + i] = rng.integers(40, 256, (15 - i, 23 + i))
    return images


@pytest.fixture
def path(tmp_path):
    return tmp_path / "test.mat"


def test_reads_images_upright_with_labels_and_boxes(path, images):
    write(path, images, np.array([3, 0, 9], np.uint8))
    examples = list(read_affnist(path))
    rows = {key: np.stack([e[key] for e in examples]) for key in examples[0]}
    np.testing.assert_array_equal(rows["id"], [0, 1, 2])
    np.testing.assert_array_equal(rows["image"], images[..., None])
    np.testing.assert_array_equal(rows["label"], [3, 0, 9])
    assert (rows["image"].dtype, rows["label"].dtype) == (np.uint8, np.int32)
    np.testing.assert_allclose(rows["keypoints"][1, 0], [7 / 40, 6 / 40], atol=1e-6)
    np.testing.assert_allclose(rows["keypoints"][1, 4], [31 / 40, 20 / 40], atol=1e-6)
    np.testing.assert_array_equal(rows["keypoints"], box_keypoints(rows["image"]))


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        (
            {"image": np.zeros((784, 3), np.uint8)},
            r"uint8 \[1600, N\]; got .*\[784, 3\]",
        ),
        ({"image": np.zeros((1600, 3))}, r"uint8 \[1600, N\]; got float64"),
        ({"label_int": np.zeros((1, 2), np.uint8)}, "each of the 3 images; got 2"),
        ({"label_int": np.full((1, 3), 12, np.uint8)}, r"0\.\.9; got 12\.\.12"),
    ],
)
def test_fields_of_another_form_are_named(path, images, changed, match):
    write(path, images, np.array([3, 0, 9], np.uint8), **changed)
    with pytest.raises(ValueError, match=match):
        read_affnist(path)


def test_other_files_are_named(path, tmp_path):
    scipy.io.savemat(path, {"affNISTdata": {"image": np.zeros(3)}})
    with pytest.raises(ValueError, match=r"field image|field label_int; got fields"):
        read_affnist(path)
    scipy.io.savemat(path, {"other": np.zeros(3)})
    with pytest.raises(
        ValueError, match=r"struct affNISTdata .*got variables \['other"
    ):
        read_affnist(path)
    path.write_bytes(b"not matlab at all" * 20)
    with pytest.raises(ValueError, match="is not a readable .mat file"):
        read_affnist(path)
    with pytest.raises(ValueError, match="absent.mat is not a file"):
        read_affnist(tmp_path / "absent.mat")
