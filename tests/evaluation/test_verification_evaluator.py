"""Verification under conditions, with networks that read keypoints alone."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.evaluation.evaluators.verification import build
from kprpe_jax.evaluation.pairs import Pairs
from tests.evaluation.functions import function_recognizer
from tests.tasks.tiny import one_device

SIZE = (8, 8)


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


def data_of(rows, pairs, *, batch_size=4, needs_keypoints=True):
    """What a run says of these rows and pairs."""
    return SimpleNamespace(
        open_pairs=lambda *_: (rows, pairs),
        batch_size=batch_size,
        needs_keypoints=needs_keypoints,
    )


def verify_points(entries, points, *, batch_size=4):
    """Verify neighbors by where their keypoints lie, as seen from the center."""

    def embed(variables, images, keypoints):
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
    data = data_of(Points(points), pairs, batch_size=batch_size)
    recognizer = function_recognizer(embed, SIZE)
    return {
        name: build(data, **fields)(recognizer, one_device())
        for name, fields in entries.items()
    }


def test_evaluators_of_keypoints_are_left_out_for_a_network_that_reads_none():
    pairs = Pairs(np.array([0]), np.array([1]), np.array([True]))
    data = data_of(Points(np.zeros((2, 2))), pairs, needs_keypoints=False)
    assert build(data, severity=0.5) is not None
    assert build(data, severity=1.0, keypoints="swapped") is None
    assert build(data, alphas=(0.1,)) is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(severity=4.0), r"severities must lie in \[0, 4\)"),
        (dict(keypoints="lost"), "keypoints must be one of .*; got 'lost'"),
        (dict(keypoints="swapped"), "batch_size must be at least 2, as keypoints are"),
    ],
)
def test_mistakes(fields, message):
    with pytest.raises(ValueError, match=message):
        verify_points({"x": fields}, np.zeros((4, 2)), batch_size=1)


@pytest.mark.parametrize(("impostors", "given"), [(10, False), (100, True)])
def test_a_rate_of_false_alarms_needs_impostors_enough(impostors, given):
    points = np.random.default_rng(0).random((2 * impostors, 2))
    rows = np.arange(impostors)
    first = np.concatenate([rows, rows])
    second = np.concatenate([rows, impostors + rows])
    same = np.arange(2 * impostors) < impostors

    def embed(variables, images, keypoints):
        return keypoints[:, 0] + 1

    data = data_of(Points(points), Pairs(first, second, same), batch_size=200)
    evaluate = build(data, mirror="none")
    results = evaluate(function_recognizer(embed, SIZE), one_device())
    assert ("tar_at_far_1e-2" in results) == given


@pytest.mark.slow
def test_wrong_keypoints_reach_the_network_as_the_condition_says():
    """Rows 2k and 2k + 1 share a keypoint, all that this network reads."""
    angle = np.repeat(np.linspace(-1.2, 1.2, 4), 2)
    points = 0.5 + 0.4 * np.stack([np.cos(angle), np.sin(angle)], -1)
    results = verify_points(
        {
            "aligned": {},
            "swapped": {"keypoints": "swapped"},
            "scale": {"alphas": (0.1,)},
            "noise": {"alphas": (0.0, 9.0)},
        },
        points,
    )
    assert results["aligned"]["accuracy"] == 1
    assert results["aligned"]["pairs"] == 40
    # Swapped keypoints: partners no longer agree.
    assert results["swapped"]["accuracy"] < 0.9
    assert results["scale"]["scale_0.1"] == 1  # Eq. 12 moves partners alike
    assert set(results["noise"]) == {
        "uniform_0", "uniform_9", "scale_0", "scale_9", "pairs",
    }  # fmt: skip
    assert results["noise"]["uniform_0"] == 1
    assert results["noise"]["uniform_9"] < 0.9
