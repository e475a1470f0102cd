"""Crops: what they show, and where their points come to lie."""

import jax
import numpy as np

from kprpe_jax.alignment.crops import crop_faces, keypoint_boxes

crop = jax.jit(crop_faces, static_argnames=("size", "padding", "jitter"))


def one_bright_pixel(row, column, size=(20, 30)):
    image = np.full((1, *size, 3), -1, np.float32)
    image[0, row, column] = 1
    return image


def test_a_crop_is_the_padded_square_around_the_box():
    """Points of a face 10 pixels wide and 5 high, in an image of 30 x 20."""
    points = np.float32([[10 / 30, 8 / 20], [20 / 30, 13 / 20], [15 / 30, 9 / 20]])[
        None
    ]
    crops = crop(one_bright_pixel(10, 14), points, size=12, padding=0.1)
    # The side is 10 (1 + 2 * 0.1) = 12 pixels, so nothing is resampled in size; the
    # middle (15, 10.5) goes to (6, 6).
    np.testing.assert_allclose(crops.keypoints[0, 2], [6 / 12, 4.5 / 12], atol=1e-6)
    np.testing.assert_allclose(crops.boxes[0] * 12, [1, 3.5, 11, 8.5], atol=1e-5)
    bright = np.asarray(crops.images[0, ..., 0])
    # Half a pixel off: the pixel's light is shared by two rows.
    np.testing.assert_allclose(bright[5:7, 5], 0, atol=1e-5)
    assert (bright > -0.99).sum() == 2


def test_beyond_the_photo_is_black():
    points = np.float32([[0, 0], [0.2, 0.2], [0.1, 0.1]])[None]
    crops = crop(np.ones((1, 20, 20, 3), np.float32), points, size=8, padding=0.5)
    assert np.all(crops.images[0, 0] == -1)
    assert np.all(crops.images[0, -1, -1] == 1)


def test_jitter_moves_image_points_and_box_alike():
    points = np.tile(np.float32([[0.3, 0.3], [0.7, 0.6], [0.5, 0.4]]), (64, 1, 1))
    images = np.tile(one_bright_pixel(9, 11, (20, 20)), (64, 1, 1, 1))
    crops = crop(images, points, size=40, jitter=0.1, rng=jax.random.key(0))
    np.testing.assert_allclose(crops.boxes, keypoint_boxes(crops.keypoints), atol=1e-6)
    width = np.asarray(crops.boxes[:, 2] - crops.boxes[:, 0])
    # 1 / (1.2 (1 + d)), d uniform in -0.1 .. 0.1
    assert 1 / 1.32 <= width.min() < 1 / 1.28
    assert 1 / 1.12 < width.max() <= 1 / 1.08
    middle = np.asarray(crops.boxes[:, :2] + crops.boxes[:, 2:]) / 2
    assert 0.05 < np.abs(middle - 0.5).max() < 0.1
    # The bright pixel's center is at (0.575, 0.475) of the image.
    low, high = points[0].min(0), points[0].max(0)
    share = (np.float32([11.5, 9.5]) / 20 - low) / (high - low)
    want = crops.boxes[:, :2] + share * (crops.boxes[:, 2:] - crops.boxes[:, :2])
    light = np.asarray(crops.images[..., 0]) + 1
    axis = (np.arange(40) + 0.5) / 40
    total = light.sum((1, 2))
    got = np.stack(
        [(light.sum(1) * axis).sum(1) / total, (light.sum(2) * axis).sum(1) / total], 1
    )
    np.testing.assert_allclose(got, want, atol=0.01)


def test_points_in_one_place_are_a_finite_crop():
    points = np.full((1, 5, 2), 0.5, np.float32)
    crops = crop(np.ones((1, 20, 20, 3), np.float32), points, size=8)
    assert np.isfinite(crops.images).all()
    np.testing.assert_allclose(crops.keypoints, 0.5, atol=1e-6)
