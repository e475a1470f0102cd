import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.core.mesh import make_mesh
from kprpe_jax.evaluation.conditions import Condition
from kprpe_jax.evaluation.misaligned import (
    face_conditions,
    make_evaluators,
    misalign,
)
from kprpe_jax.evaluation.pairs import Pairs
from kprpe_jax.training.state import TrainState


def spots(points, size=48):
    """Black images with a bright spot at each of their points [B, 1, 2]."""
    y, x = np.mgrid[:size, :size] + 0.5
    squares = [(x - px * size) ** 2 + (y - py * size) ** 2 for px, py in points[:, 0]]
    light = np.exp(-np.array(squares) / 8)
    return jnp.asarray(2 * light[..., None].repeat(3, -1) - 1, jnp.float32)


@pytest.mark.slow
def test_severity_zero_changes_nothing():
    points = np.full((3, 1, 2), 0.4, np.float32)
    images = spots(points)
    moved, keypoints = misalign(jax.random.key(0), images, points, jnp.float32(0))
    np.testing.assert_allclose(moved, images, atol=1e-5)
    np.testing.assert_allclose(keypoints, points, atol=1e-6)


@pytest.mark.slow
def test_keypoints_follow_the_picture_and_differ_by_row():
    points = np.full((6, 1, 2), 0.42, np.float32)
    moved, keypoints = misalign(
        jax.random.key(1), spots(points), points, jnp.float32(1)
    )
    light = np.asarray(moved[..., 0]) + 1
    assert light.min() >= -1e-5  # black outside
    y, x = np.mgrid[:48, :48] + 0.5
    total = light.sum((1, 2))
    center = np.stack([(light * x).sum((1, 2)), (light * y).sum((1, 2))], -1)
    np.testing.assert_allclose(center / total[:, None] / 48, keypoints[:, 0], atol=4e-3)
    assert np.abs(np.diff(keypoints[:, 0], axis=0)).max() > 0.02


class Points:
    """Rows whose keypoints name the person: five copies of a point of their own."""

    def __init__(self, points):
        self.points = np.float32(points)

    def __len__(self):
        return len(self.points)

    def select(self, rows):
        return Points(self.points[rows])

    def __getitems__(self, rows):
        return [
            {
                "image": np.zeros((8, 8, 3), np.uint8),
                "keypoints": np.tile(self.points[row], (5, 1)),
            }
            for row in rows
        ]


def verify_points(conditions, points, *, batch_size=4):
    """Verify neighbors by where their keypoints lie, as seen from the center."""

    def embed(params, collections, images, keypoints):
        # The mirror image is added: subtract its x, so that nothing cancels out.
        x, y = keypoints[:, 0, 0] - 0.5, keypoints[:, 0, 1] - 0.5
        return jnp.stack([jnp.abs(x), y, jnp.full_like(x, 0.01)], -1)

    count = len(points)
    first = np.tile(np.arange(0, count, 2), 10)
    second = np.concatenate(
        [first[: count // 2] + 1] * 5 + [first[1 : count // 2 + 1]] * 5
    )
    same = np.arange(len(first)) < 5 * (count // 2)
    mix = np.random.default_rng(0).permutation(len(first))
    pairs = Pairs(first[mix], second[mix], same[mix])
    evaluators = make_evaluators(
        embed, Points(points), pairs, conditions, batch_size=batch_size
    )
    state = TrainState(
        step=0, params=None, collections=None, opt_state=None, rng=None,
        nonfinite_step=None,
    )  # fmt: skip
    mesh = make_mesh({"data": 1, "fsdp": 1, "class": 1}, jax.devices()[:1])
    return {name: run(state, mesh) for name, run in evaluators.items()}


def test_conditions_of_faces():
    plain = face_conditions((0.5, 1.0), (0.1,), reads_keypoints=False)
    assert list(plain) == ["aligned", "misaligned_0.5", "misaligned_1"]
    assert plain["misaligned_0.5"]["misaligned_0.5"] == Condition(severity=0.5)
    full = face_conditions((0.5,), (0.0, 0.1), reads_keypoints=True)
    assert full["swapped"]["swapped"] == Condition(1.0, keypoints="swapped")
    assert full["aligned_noise"]["scale_0.1"] == Condition(0.0, 0.1, "scale")
    assert full["noise"]["uniform_0.1"] == Condition(1.0, 0.1, "uniform")
    assert list(full["noise"]) == ["uniform_0", "uniform_0.1", "scale_0", "scale_0.1"]
    assert "noise" not in face_conditions((0.5,), (), reads_keypoints=True)


@pytest.mark.parametrize("severity", [-1.0, 4.0, np.nan, np.inf])
def test_severities_that_lose_the_face_are_refused(severity):
    with pytest.raises(ValueError, match=r"severities must lie in \[0, 4\), .*; got"):
        face_conditions((1.0, severity), (), reads_keypoints=False)


def test_a_batch_of_one_has_nobody_elses_keypoints():
    swapped = {"swapped": Condition(keypoints="swapped")}
    with pytest.raises(ValueError, match="batch_size must be at least 2, as swapped "):
        verify_points({"swapped": swapped}, np.zeros((4, 2)), batch_size=1)


@pytest.mark.parametrize(("impostors", "given"), [(10, False), (100, True)])
def test_a_rate_of_false_alarms_needs_impostors_enough(impostors, given):
    points = np.random.default_rng(0).random((2 * impostors, 2))
    rows = np.arange(impostors)
    first = np.concatenate([rows, rows])
    second = np.concatenate([rows, impostors + rows])
    same = np.arange(2 * impostors) < impostors

    def embed(params, collections, images, keypoints):
        return keypoints[:, 0] + 1

    evaluators = make_evaluators(
        embed, Points(points), Pairs(first, second, same),
        {"aligned": {"aligned": Condition()}}, batch_size=200, mirror="none",
    )  # fmt: skip
    state = TrainState(
        step=0, params=None, collections=None, opt_state=None, rng=None,
        nonfinite_step=None,
    )  # fmt: skip
    mesh = make_mesh({"data": 1, "fsdp": 1, "class": 1}, jax.devices()[:1])
    assert ("tar_at_far_1e-2" in evaluators["aligned"](state, mesh)) == given


def test_the_mirror_image_is_taken_as_told():
    pairs = Pairs(np.array([0]), np.array([1]), np.array([True]))
    conditions = face_conditions((), (), reads_keypoints=False)
    with pytest.raises(ValueError, match="with_mirror: unknown 'twice'; use one of"):
        make_evaluators(
            None, Points(np.zeros((2, 2))), pairs, conditions,
            batch_size=4, mirror="twice",
        )  # fmt: skip


@pytest.mark.slow
def test_wrong_keypoints_reach_the_network_as_the_condition_says():
    """Rows 2k and 2k + 1 share a keypoint, all that this network reads."""
    angle = np.repeat(np.linspace(-1.2, 1.2, 4), 2)
    points = 0.5 + 0.4 * np.stack([np.cos(angle), np.sin(angle)], -1)
    noise = {"uniform_0": Condition(), "uniform_9": Condition(alpha=9.0)}
    results = verify_points(
        {
            "aligned": {"aligned": Condition()},
            "swapped": {"swapped": Condition(keypoints="swapped")},
            "scale": {"scale": Condition(alpha=0.1, noise="scale")},
            "noise": noise,
        },
        points,
    )
    assert results["aligned"]["accuracy"] == 1
    assert results["aligned"]["pairs"] == 40
    # Another's keypoints: partners no longer agree.
    assert results["swapped"]["accuracy"] < 0.9
    assert results["scale"]["accuracy"] == 1  # Eq. 12 moves partners alike
    assert set(results["noise"]) == {"uniform_0", "uniform_9", "pairs"}
    assert results["noise"]["uniform_0"] == 1
    assert results["noise"]["uniform_9"] < 0.9
