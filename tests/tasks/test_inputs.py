import jax
import numpy as np
import pytest

from kprpe_jax.data.keypoints import box_keypoints
from kprpe_jax.data.store import open_split
from kprpe_jax.evaluation.evaluators.accuracy import Condition
from kprpe_jax.geometry.marks import draw_keypoints
from kprpe_jax.tasks import digits, networks
from tests.quick import quick_jit
from tests.tasks import tiny

KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def batch():
    source = open_split(tiny.data_dir(), "digits", "test")
    return tiny.batch_of(source, range(12))


@pytest.fixture(scope="module")
def distorted(batch):
    """Give a function that runs `condition_inputs`; one program per kind of points."""

    @quick_jit
    def by_hand(rng, severity, alpha):
        config = tiny.make_config()
        return {
            kind: digits.condition_inputs(
                batch,
                rng,
                severity,
                alpha,
                condition=Condition(keypoints=kind),
                config=config,
            )
            for kind in ("moved", "box", "swapped")
        }

    def run(severity, alpha=0.0, rng=KEY):
        return jax.device_get(by_hand(rng, np.float32(severity), np.float32(alpha)))

    return run


def ink_box(image):
    """Corners of the box around the ink of an image in [-1, 1], in a loop."""
    rows, columns = [], []
    for row in range(image.shape[0]):
        for column in range(image.shape[1]):
            if (image[row, column, 0] + 1) * 127.5 > 32:
                rows.append(row)
                columns.append(column)
    x, y = (min(columns), max(columns) + 1), (min(rows), max(rows) + 1)
    return np.array([(x[0], y[0]), (x[1], y[0]), (x[0], y[1]), (x[1], y[1])]) / 40


def test_severity_0_moves_by_whole_pixels(batch, distorted):
    images, keypoints = distorted(0)["moved"]
    assert images.shape == (12, 40, 40, 3)
    offsets = keypoints * 40 - batch["keypoints"] * 28
    np.testing.assert_allclose(offsets, np.round(offsets), atol=1e-4)
    assert np.ptp(offsets, axis=1).max() < 1e-4  # all five points alike
    assert np.ptp(offsets, axis=0).min() > 3  # not all digits alike
    for image, digit, offset in zip(images, batch["image"], offsets, strict=True):
        x, y = np.round(offset[0]).astype(int)
        expected = np.zeros((40 + 2 * 28, 40 + 2 * 28))
        expected[28 + y : 56 + y, 28 + x : 56 + x] = digit[..., 0]
        expected = expected[28:-28, 28:-28] / 127.5 - 1
        np.testing.assert_allclose(image, np.tile(expected[..., None], 3), atol=1e-5)


def test_severity_1_distorts(distorted):
    still, moved = distorted(0)["moved"][1], distorted(1)["moved"][1]
    sides = [points[:, 1] - points[:, 0] for points in (still, moved)]  # top edges
    assert np.abs(sides[0][:, 1]).max() < 1e-6  # upright
    assert np.abs(sides[1][:, 1]).max() > 0.02  # turned
    lengths = [np.linalg.norm(side, axis=-1) for side in sides]
    assert np.abs(lengths[1] / lengths[0] - 1).max() > 0.05


def test_box_is_found_in_the_distorted_image_and_moved_is_not(distorted):
    images, box = distorted(1)["box"]
    same_images, moved = distorted(1)["moved"]
    np.testing.assert_array_equal(images, same_images)
    for image, points in zip(images, box, strict=True):
        np.testing.assert_allclose(points[[0, 1, 3, 4]], ink_box(image), atol=1e-6)
    assert np.abs(box - moved).max() > 0.03


def test_swapped_keypoints_are_those_of_another_image(distorted):
    images, swapped = distorted(1)["swapped"]
    same_images, moved = distorted(1)["moved"]
    np.testing.assert_array_equal(images, same_images)
    for index in range(12):
        np.testing.assert_array_equal(swapped[index], moved[index - 1])


def test_both_kinds_of_keypoints_agree_without_distortion(distorted):
    (_, box), (_, moved) = distorted(0)["box"], distorted(0)["moved"]
    np.testing.assert_allclose(box, moved, atol=1e-5)


def test_keypoint_errors_reach_the_network_and_not_the_image(distorted):
    images, keypoints = distorted(1)["moved"]
    same, wrong = distorted(1, alpha=0.1)["moved"]
    np.testing.assert_array_equal(images, same)
    error = np.abs(wrong - keypoints)
    assert 0 < error.max()
    assert (error <= 0.1 * np.abs(keypoints) + 1e-6).all()


def test_draws_depend_on_the_key_alone(distorted):
    first, again = distorted(1)["moved"], distorted(1)["moved"]
    jax.tree.map(np.testing.assert_array_equal, first, again)
    other = distorted(1, rng=jax.random.key(4))["moved"]
    assert np.abs(first[1] - other[1]).max() > 0.03


@pytest.mark.slow
def test_absolute_drawn_shows_the_keypoints(batch):
    config = tiny.make_config(**{"model.position": "absolute_drawn"})
    images, points = digits.training_inputs(batch, KEY, config)
    marked = draw_keypoints(images, points)
    network = networks.make_network(config)
    plain = network.clone(position="absolute")
    variables = quick_jit(network.init)(KEY, images, points)
    np.testing.assert_array_equal(
        quick_jit(network.apply)(variables, images, points),
        quick_jit(plain.apply)(variables, marked),
    )
    for index, (x, y) in enumerate(points[:, 2] * 40):  # the center: always inside
        assert (marked[index, int(y), int(x)] == 1).all()
    changed = (marked != images).any(-1).reshape(12, -1).sum(1)
    assert (changed > 5).all()


@pytest.mark.parametrize("number", [2, 3, 4])
def test_fewer_keypoints_are_the_first_of_the_data(batch, number):
    config = tiny.make_config(**{"model.position_options.num_keypoints": number})
    points = box_keypoints(batch["image"])
    images = np.zeros((12, 40, 40, 3), np.float32)
    spec = networks.check_canvas(config, networks.make_network(config))
    _, kept = spec.arguments(images, points)
    np.testing.assert_array_equal(kept, points[:, :number])
    assert networks.example_inputs(spec, 1)[1].shape == (1, number, 2)


def test_canvas_and_model_must_agree():
    config = tiny.make_config()
    networks.check_canvas(config, networks.make_network(config))
    config = tiny.make_config(**{"model.image_size": (40, 48)})
    with pytest.raises(
        ValueError, match=r"must be the canvas \(40, 40\); got \(40, 48\); change it or"
    ):
        networks.check_canvas(config, networks.make_network(config))


@pytest.mark.parametrize("number", [0, 6])
def test_a_model_cannot_use_more_keypoints_than_the_data_has(number):
    config = tiny.make_config(**{"model.position_options.num_keypoints": number})
    with pytest.raises(ValueError, match=rf"1 \.\. .*num_keypoints = 5; got {number}"):
        networks.check_canvas(config, networks.make_network(config))
