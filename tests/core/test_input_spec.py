"""The input contract, applied to images and keypoints."""

import numpy as np
import pytest

from kprpe_jax.core.input_spec import InputSpec, to_bytes, to_unit_range
from kprpe_jax.registry import NETWORKS


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("facenet", (np.array([0, 255]) - 127.5) / 128),
        ("deepface_emd_facenet", [0, 1]),
        ("mobilefacenet", (np.array([0, 255]) - 127.5) / 128),
        ("vit_kprpe_base_multihead", [-1, 1]),
    ],
)
def test_published_ranges(name, ends):
    spec = NETWORKS[name].input_spec
    pixels = np.zeros((1, *spec.image_size, 3), np.uint8)
    pixels[:, ::2] = 255
    images, _ = spec.apply(to_unit_range(pixels), np.zeros((1, 5, 2), np.float32))
    np.testing.assert_allclose(
        [images[0, 1, 0, 0], images[0, 0, 0, 0]], ends, atol=1e-6
    )


def test_bytes_there_and_back():
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_bytes(to_unit_range(levels)), levels)


def test_wide_images_lose_both_sides_and_keypoints_follow():
    spec = InputSpec((112, 96), num_keypoints=2)
    images = np.arange(112, dtype=np.float32)[None, None, :, None]
    images = np.broadcast_to(images, (1, 112, 112, 3))
    keypoints = np.array([[[8 / 112, 0.5], [104 / 112, 1.0], [0.5, 0.5]]], np.float32)
    cut, moved = spec.apply(images, keypoints)
    np.testing.assert_array_equal(cut[0, 0, :, 0], np.arange(8, 104))
    want = [[[0, 0.5], [1, 1], [0.5, 0.5]]]
    np.testing.assert_allclose(moved, want, atol=1e-6)
    read = spec.arguments(images, keypoints)
    assert [x.shape for x in read] == [(1, 112, 96, 3), (1, 2, 2)]


def test_color_order():
    image = np.stack([np.full((4, 4), level) for level in (0.1, 0.2, 0.3)], -1)[None]
    flipped, _ = InputSpec((4, 4), color="bgr").apply(image)
    np.testing.assert_array_equal(flipped, image[..., ::-1])


@pytest.mark.parametrize(
    ("shape", "points", "message"),
    [
        ((1, 100, 112, 3), 5, "112 x 96 pixels; got 100 x 112"),
        ((1, 112, 95, 3), 5, "112 x 96 pixels; got 112 x 95"),
        ((1, 112, 97, 3), 5, "112 x 96 pixels; got 112 x 97"),
        ((1, 112, 96, 3), 2, "reads 3 keypoints of each image; got 2"),
        ((1, 112, 96, 3), 0, "reads 3 keypoints of each image; got 0"),
    ],
)
def test_bad_inputs(shape, points, message):
    spec = InputSpec((112, 96), num_keypoints=3)
    keypoints = np.zeros((1, points, 2)) if points else None
    with pytest.raises(ValueError, match=message):
        spec.apply(np.zeros(shape, np.float32), keypoints)


def test_fingerprint_changes_with_the_contract():
    spec = InputSpec((112, 112))
    assert spec.fingerprint == InputSpec((112, 112)).fingerprint
    others = [spec._replace(color="bgr"), spec._replace(scale=128.0)]
    assert len({x.fingerprint for x in (spec, *others)}) == 3
    assert spec.describe().startswith("112 x 112, RGB, (x - 127.5) / 127.5")
