"""Clips to train on, whole sequences to test on, and what a batch must be."""

import collections

import numpy as np
import pytest

from kprpe_jax.data import order
from kprpe_jax.data.gait import (
    Clips,
    GaitSplit,
    WholeSequences,
    check_clips,
    sample_frames,
)
from kprpe_jax.data.loader import train_batches


class Rows(list):
    """Rows with the access of `store.StoredRows`."""

    def __getitems__(self, rows):
        return [self[row] for row in rows]


def split(lengths=(1, 3, 9, 20), size=(4, 3)):
    rows = Rows()
    for i, length in enumerate(lengths):
        frames = np.arange(length, dtype=np.uint8) + 1
        rows.append(
            {
                "silhouettes": np.broadcast_to(frames[:, None, None], (length, *size)),
                "keypoints": np.full((length, 17, 2), 0.5, np.float32),
                "joint_mask": np.ones((length, 17), bool),
                "label": np.int32(i // 2),
                "id": np.int32(i),
            }
        )
    labels = np.array([row["label"] for row in rows])
    return GaitSplit(rows, labels, np.array(lengths, np.int32), labels == 0)


@pytest.mark.parametrize("length", [1, 2, 5, 7, 8, 30])
def test_sampled_frames_are_ordered_and_from_a_window(length):
    count, skip = 5, 2
    seen = collections.Counter()
    for visit in range(200):
        frames = sample_frames(
            length, count, skip=skip, rng=np.random.default_rng(visit)
        )
        assert frames.shape == (5,)
        assert 0 <= frames.min() <= frames.max() < length
        steps = np.diff(frames) % length if length < 7 else np.diff(frames)
        if length >= 7:
            assert (steps > 0).all()
            assert frames[-1] - frames[0] < count + skip
        elif length > 1 and length > skip + 1:
            assert ((steps > 0) & (steps <= skip + 1)).all()
        seen.update(frames.tolist())
    assert set(seen) == set(range(length))  # the first and last frames, too


def test_visits_sample_other_frames_and_runs_the_same():
    sequences = split()
    clips = [
        Clips(sequences, num_frames=4, skip=1, seed=seed)[3 + 4 * visit]
        for seed, visit in ((0, 0), (0, 1), (0, 2), (0, 0), (1, 0))
    ]
    frames = [tuple(clip["silhouettes"][:, 0, 0]) for clip in clips]
    assert frames[0] == frames[3]
    assert len(set(frames)) == 4
    assert {int(clip["id"]) for clip in clips} == {3}
    assert clips[0]["keypoints"].shape == (4, 17, 2)
    single = Clips(sequences, num_frames=4, skip=1, seed=0)[0]
    assert single["silhouettes"].shape == (4, 4, 3)  # one frame, repeated


def test_the_loader_gives_p_people_times_k_sequences_wherever_it_starts():
    sequences = split((5, 6, 7, 8, 9, 10))
    clips = Clips(sequences, num_frames=3, skip=1, seed=0)
    rows = order.balanced(sequences.labels, images_per_identity=2, seed=0)
    rows = order.numbered(rows, num_rows=len(clips))
    start, late = (
        train_batches(clips, rows, batch_size=4, start_step=step, num_threads=1)
        for step in (0, 2)
    )
    batches = [next(start) for _ in range(4)]
    for batch in batches:
        people = batch["label"].reshape(2, 2)
        assert (people[:, 0] == people[:, 1]).all()
        assert people[0, 0] != people[1, 0]
        assert (batch["id"][::2] != batch["id"][1::2]).all()
    for want in batches[2:]:
        got = next(late)
        for name in want:
            np.testing.assert_array_equal(got[name], want[name])
    both = [batch["silhouettes"][:, :, 0, 0] for batch in batches]
    assert len({clip.tobytes() for clip in np.concatenate(both)}) > 6


def test_whole_sequences_are_padded_or_thinned_evenly():
    rows = WholeSequences(split(), np.array([3, 0, 2]), num_frames=5)
    long, one, middle = rows.__getitems__([0, 1, 2])
    assert long["silhouettes"][:, 0, 0].tolist() == [1, 5, 9, 13, 17]
    assert long["frame_mask"].all()
    assert middle["silhouettes"][:, 0, 0].tolist() == [1, 2, 4, 6, 8]
    assert one["silhouettes"][:, 0, 0].tolist() == [1, 0, 0, 0, 0]
    assert one["frame_mask"].tolist() == [True] + [False] * 4
    assert one["joint_mask"].any(1).tolist() == [True] + [False] * 4
    assert [int(row["id"]) for row in (long, one, middle)] == [3, 0, 2]


def test_a_bad_batch_is_one_sentence():
    clips = Clips(split(), num_frames=3, skip=0, seed=0).__getitems__([0, 1, 2, 3])
    batch = {key: np.stack([clip[key] for clip in clips]) for key in clips[0]}
    options = dict(num_classes=2, size=(4, 3), needs_joints=True)
    check_clips(batch, **options)
    far = batch["keypoints"].copy()
    far[2, 1, 7] = (0.5, 63)
    unknown = far.copy()
    unknown[2, 1, 7] = np.nan
    cases = [
        ({"silhouettes": batch["silhouettes"][..., :2]}, r"uint8 \[b, T, 4, 3\]"),
        ({"silhouettes": batch["silhouettes"] / 255}, "got float64"),
        ({"keypoints": far[:, :, :5]}, r"must be \[b, T, 17, 2\]"),
        ({"keypoints": far}, r"got \[0.5, 63.0\] for joint 7 in .* id 2"),
        ({"keypoints": unknown}, r"got \[nan, nan\] for joint 7"),
        ({"label": batch["label"] + 1}, "labels must be 0..1; got 2 in .* id 2"),
        ({"joint_mask": np.zeros((4, 3, 17), bool)}, "no sequence of the batch has"),
    ]
    for wrong, message in cases:
        with pytest.raises(ValueError, match=message):
            check_clips({**batch, **wrong}, **options)
    # Missing joints may stand anywhere.
    known = batch["joint_mask"].copy()
    known[2, 1, 7] = False
    check_clips({**batch, "keypoints": unknown, "joint_mask": known}, **options)
    nothing = {**batch, "joint_mask": np.zeros((4, 3, 17), bool)}
    check_clips(nothing, **{**options, "needs_joints": False})
