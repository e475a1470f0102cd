"""Walkers: anatomy, gait, what is rendered, and the data set of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.augmentation.sequences import JOINT_MIRROR
from kprpe_jax.data.gait import open_gait
from kprpe_jax.data.prepare import prepare
from kprpe_jax.data.synthetic import walker_frames
from kprpe_jax.data.synthetic.walker import (
    JOINTS,
    SPREAD,
    Walker,
    pose,
    sample_walker,
)
from kprpe_jax.data.synthetic.walker_frames import WalkSeverity, render_walk
from tests.quick import quick_jit

SIZE = (32, 22)
OFF = WalkSeverity(*[np.float32(0)] * 6)
ON = WalkSeverity(*[np.float32(1)] * 6)
AT = {name: place for place, name in enumerate(JOINTS)}


@pytest.fixture(scope="module")
def render():
    return quick_jit(functools.partial(render_walk, num_frames=6, size=SIZE))


@pytest.fixture(scope="module")
def posed():
    return quick_jit(lambda i, phase: pose(sample_walker(0, i), phase))


def test_limbs_keep_their_length_and_the_gait_is_periodic_and_symmetric(posed):
    walker = sample_walker(0, 3)
    for phase in (0.0, 1.0, 2.5):
        joints = posed(3, phase).joints
        for side in ("left", "right"):
            for upper, lower, length in (
                ("hip", "knee", walker.thigh),
                ("knee", "ankle", walker.shin),
                ("shoulder", "elbow", walker.upper_arm),
                ("elbow", "wrist", walker.forearm),
            ):
                ends = joints[np.array([AT[f"{side}_{upper}"], AT[f"{side}_{lower}"]])]
                got = np.linalg.norm(ends[0] - ends[1])
                np.testing.assert_allclose(got, length, rtol=1e-5)
        again = posed(3, phase + 2 * np.pi)
        np.testing.assert_allclose(again.joints, joints, atol=1e-5)
        # Half a period later the other side does the same.
        other = np.array(posed(3, phase + np.pi).joints)[np.array(JOINT_MIRROR)]
        np.testing.assert_allclose(other * [1, 1, -1], joints, atol=1e-5)


def test_a_leg_bends_backwards_and_arms_swing_against_legs(posed):
    joints = np.array([posed(0, p).joints for p in np.linspace(0, 6.2, 16)])
    hip, knee, ankle = (joints[:, AT[f"left_{x}"]] for x in ("hip", "knee", "ankle"))
    thigh, shin = knee - hip, ankle - knee
    # The shin is never in front of the thigh's own line.
    assert (thigh[:, 0] * shin[:, 1] - thigh[:, 1] * shin[:, 0] <= 1e-5).all()
    wrist = joints[:, AT["left_wrist"], 0] - joints[:, AT["left_shoulder"], 0]
    assert np.corrcoef(wrist, (ankle - hip)[:, 0])[0, 1] < -0.8


def test_people_differ_within_bounds():
    walkers = np.array([sample_walker(5, i) for i in range(30)])
    mean, spread = np.float32(Walker()), np.float32(SPREAD)
    apart = (walkers - mean) / spread
    assert np.abs(apart).max() <= 2.2 + 1e-3
    assert 0.7 < apart.std() < 1.1
    assert np.abs(np.corrcoef(apart)[~np.eye(30, dtype=bool)]).max() < 0.7
    np.testing.assert_array_equal(sample_walker(5, 4), walkers[4])
    assert (np.array(sample_walker(6, 4)) != walkers[4]).any()


@pytest.mark.slow
def test_a_frame_depends_on_its_numbers_alone(render):
    walk = render(0, 1, 2, severity=ON)
    longer = quick_jit(functools.partial(render_walk, num_frames=8, size=SIZE))
    for got, want in zip(longer(0, 1, 2, severity=ON), walk, strict=True):
        np.testing.assert_array_equal(got[:6], want)
    for other in (render(1, 1, 2, severity=ON), render(0, 2, 2, severity=ON)):
        assert (other.silhouettes != walk.silhouettes).any()
    assert (render(0, 1, 3, severity=ON).keypoints != walk.keypoints).any()


def test_clean_joints_lie_on_the_body_and_the_body_fills_the_frame(render):
    for person in range(4):
        walk = jax.device_get(render(0, person, 0, severity=OFF))
        assert walk.joint_mask.all()
        assert walk.kept.all()
        for frame, joints in zip(walk.silhouettes, walk.keypoints, strict=True):
            x, y = (joints * [SIZE[1], SIZE[0]]).astype(int).T
            inside = (x >= 0) & (x < SIZE[1])
            assert (frame[y[inside], x[inside]] > 60).all()
            rows = np.flatnonzero((frame > 60).any(1))
            assert rows[0] <= 2
            assert rows[-1] >= SIZE[0] - 3


def test_outline_is_the_union_of_round_cones():
    starts = np.array([[3.0, 4.0], [12.0, 10.0]], np.float32)
    ends = np.array([[9.0, 4.0], [12.0, 10.0]], np.float32)
    got = walker_frames._outline(
        jnp.array(starts),
        jnp.array(ends),
        jnp.array([1.0, 2.0]),
        jnp.array([3.0, 2.0]),
        (16, 18),
    )
    want = np.zeros((16, 18))
    for y, x in np.ndindex(16, 18):
        distances = [np.hypot(x + 0.5 - 12, y + 0.5 - 10) - 2]
        t = np.clip((x + 0.5 - 3) / 6, 0, 1)
        distances.append(np.hypot(x + 0.5 - 3 - 6 * t, y + 0.5 - 4) - (1 + 2 * t))
        want[y, x] = np.clip(0.5 - min(distances), 0, 1)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_what_is_hidden_is_black_and_its_joints_are_missing(render):
    severity = OFF._replace(occlusion=np.float32(3))
    hidden = 0
    for sequence in range(6):
        walk = jax.device_get(render(0, 0, sequence, severity=severity))
        whole = jax.device_get(render(0, 0, sequence, severity=OFF))
        np.testing.assert_array_equal(walk.keypoints, whole.keypoints)
        for t in range(6):
            lost = (whole.silhouettes[t] > 60) & (walk.silhouettes[t] == 0)
            x, y = (walk.keypoints[t] * [SIZE[1], SIZE[0]]).astype(int).T
            inside = (x > 0) & (x < SIZE[1] - 1)
            missing = ~walk.joint_mask[t] & inside
            near = [
                lost[b - 1 : b + 2, a - 1 : a + 2].any() for a, b in np.stack([x, y], 1)
            ]
            assert np.array(near)[missing].all()
            hidden += missing.sum()
    assert hidden > 20


@pytest.mark.slow
def test_data_set(tmp_path):
    arguments = dict(
        num_identities=2, num_test_identities=1, sequences_per_identity=3, num_frames=5,
        size=16, difficulty=2.0,
    )  # fmt: skip
    prepare("synthetic_walkers", tmp_path, **arguments)
    train = open_gait(tmp_path, "synthetic_walkers", "train", size=(16, 11))
    test = open_gait(tmp_path, "synthetic_walkers", "test", size=(16, 11))
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert test.labels.tolist() == [0, 0, 0]
    assert train.probes.tolist() == [True, False, False] * 2
    names = {row["identity"].item() for s in (train, test) for row in s.source}
    assert names == {b"0", b"1", b"2"}
    assert test.source[0]["identity"] == b"2"
    for split in (train, test):
        for row, frames in zip(split.source, split.frames, strict=True):
            assert row["silhouettes"].shape == (frames, 16, 11)
            assert row["keypoints"].shape == (frames, 17, 2)
            assert 1 <= frames <= 5
    assert train.frames.min() < 5  # some are missing
    with pytest.raises(ValueError, match="must be 32 x 22 pixels; got 16 x 11"):
        open_gait(tmp_path, "synthetic_walkers", "test", size=(32, 22))
    with pytest.raises(ValueError, match="with the whole split"):
        open_gait(tmp_path, "synthetic_walkers", "train[:2]", size=(16, 11))
    with pytest.raises(ValueError, match="sequences and frames at least 2"):
        prepare("synthetic_walkers", tmp_path / "x", num_frames=1)
