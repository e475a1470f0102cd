import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.data.face_patches import Patches, open_patches, write_patches
from kprpe_jax.data.precompute_patches import patch_rows
from kprpe_jax.data.store import Rows
from kprpe_jax.weights.patch_cnn import PatchCnn, open_patch_cnn


def embed(variables, images):
    """Patches are the pixels, the embedding is the mean color."""
    return images.reshape(len(images), -1, 3), variables * images.mean((1, 2))


CNN = PatchCnn((2, 1), (2, 1), 3, lambda rng: jnp.float32(2), None, embed, "x")


@pytest.fixture
def folder(tmp_path, rng):
    images = rng.integers(0, 256, (5, 2, 1, 3), np.uint8)
    source = Rows({"image": images, "label": np.array([7, 7, 8, 9, 9], np.int32)})
    rows = patch_rows(CNN, source, batch_size=2)
    write_patches(rows, name="p", data_dir=tmp_path, sizes=(2, 3, 3), origin={"a": "b"})
    return tmp_path, images / 127.5 - 1


def test_rows_as_they_were_computed(folder):
    data_dir, images = folder
    source = open_patches(data_dir, "p", "train")
    rows = source.__getitems__(range(5))
    want = images.reshape(5, 2, 3)
    np.testing.assert_allclose([row["patches"] for row in rows], want, atol=1e-3)
    means = 2 * want.mean(1)
    np.testing.assert_allclose([row["embedding"] for row in rows], means, atol=1e-6)
    assert [int(row["id"]) for row in rows] == list(range(5))
    some = Patches(source, (8, 10))
    assert some.labels().tolist() == [0, 1, 1]
    np.testing.assert_allclose(some[1]["patches"], want[3], atol=1e-3)
    assert some[1]["label"] == 1
    assert Patches(source).labels().tolist() == [7, 7, 8, 9, 9]
    with pytest.raises(ValueError, match=r"must lie in 3 .. 4; got 7 .. 9; change"):
        Patches(source, (3, 5))


def test_which_cnn():
    with pytest.raises(ValueError, match="unknown backbone 'vgg'; use one of mobilefa"):
        open_patch_cnn("vgg", image_size=(112, 112))
    with pytest.raises(ValueError, match=r"multiples of 16; got \(40, 40\); change"):
        open_patch_cnn("mobilefacenet", image_size=(40, 40))
    assert open_patch_cnn("arcface_resnet", image_size=(128, 128)).grid == (8, 8)
