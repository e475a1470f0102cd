"""Gait sequences from pickles and images, joints from three forms, and all faults."""

import json
import os
import pickle

import numpy as np
import pytest

from kprpe_jax.data.gait import open_gait
from kprpe_jax.data.importers.gait import GaitSource, Split, make_splits
from kprpe_jax.data.importers.gait_folder import (
    Settings,
    find_sequences,
    read_sequence,
)
from kprpe_jax.data.importers.gait_frames import fit_frames
from kprpe_jax.data.importers.gait_joints import open_joints
from kprpe_jax.data.importers.safe_pickle import read_pickle
from kprpe_jax.data.store import open_builder
from tests.data.importers.sources import encode

SIZE = (16, 11)
WIDE = Settings(SIZE)


def person(frames=3, height=16, width=16):
    """Upright bars that move: uint8 [T, h, w]."""
    images = np.zeros((frames, height, width), np.uint8)
    for t in range(frames):
        images[t, 1:-1, width // 2 - 2 + t % 2 : width // 2 + 2] = 255
    return images


def joints(frames=3, width=16, columns=3):
    rng = np.random.default_rng(0)
    array = rng.uniform(4, width - 4, (frames, 17, columns))
    if columns == 3:
        array[..., 2] = 0.9
    return array.astype(np.float32)


def put(root, key, content, name="090.pkl", protocol=4):
    folder = root / key
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        (folder / name).write_bytes(content)
    else:
        (folder / name).write_bytes(pickle.dumps(content, protocol))


def put_images(root, key, frames):
    for t, frame in enumerate(frames):
        put(root, key, encode(frame, "PNG"), f"{t:03d}.png")


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("form", ["plain", "fortran", "ones", "bool", "list"])
def test_pickles_of_all_forms_and_images_give_the_same_frames(tmp_path, form, protocol):
    frames = person()
    value = {
        "plain": frames,
        "fortran": np.asfortranarray(frames),
        "ones": frames // 255,
        "bool": frames > 0,
        "list": list(frames),
    }[form]
    put(tmp_path, "0001/nm/090", value, protocol=protocol)
    put_images(tmp_path, "0002/nm/090", frames)
    keys = find_sequences(tmp_path)
    assert keys == {"0001": ["0001/nm/090"], "0002": ["0002/nm/090"]}
    for (key,) in keys.values():
        sequence, bad = read_sequence(tmp_path, key, WIDE, is_probe=False)
        assert bad == []
        assert sequence.identity == key[:4]
        np.testing.assert_array_equal(sequence.silhouettes, frames[:, :, 2:13])
        assert not sequence.joint_mask.any()


@pytest.mark.parametrize("order", ["<", ">"])
def test_joints_from_archive_table_and_folder(tmp_path, order):
    array = joints()
    array[1, 5, 2] = 0.05
    key = "0001/nm/090"
    np.savez(tmp_path / "joints.npz", **{key: array})
    lines = [
        ",".join([key, str(t), *map(repr, map(float, array[t].ravel()))])
        for t in (2, 0, 1)
    ]
    header = "key,frame," + ",".join(["x,y,s"] * 17)
    (tmp_path / "joints.csv").write_text("\n".join([header, *lines]) + "\n")
    put(tmp_path / "pose", key, array.astype(order + "f8"), "pose.pkl")
    put(tmp_path / "pose", key, b"not asked for", "other.pkl")
    for name in ("joints.npz", "joints.csv", "pose"):
        found = open_joints(tmp_path / name)(key)
        np.testing.assert_allclose(found.points[0], array[0, :, :2], rtol=1e-6)
        assert found.known.sum() == 3 * 17 - 1
        assert not found.known[1, 5]
        assert open_joints(tmp_path / name)("0001/nm/180") is None
    assert open_joints(tmp_path / "pose", min_score=0.95)(key).known.sum() == 0

    put(tmp_path / "sil", key, person())
    settings = Settings(SIZE, joints=open_joints(tmp_path / "joints.npz"))
    sequence, bad = read_sequence(tmp_path / "sil", key, settings, is_probe=True)
    assert bad == []
    want = (array[..., :2] - [2.5 - 0.5, 0]) / [11, 16]  # columns 2 .. 12 stay
    np.testing.assert_allclose(sequence.keypoints[0], want[0], atol=1e-5)
    fractions = Settings(
        SIZE, joints=lambda key: found._replace(points=found.points / 16),
        joint_units="fraction",
    )  # fmt: skip
    again, _ = read_sequence(tmp_path / "sil", key, fractions, is_probe=True)
    np.testing.assert_allclose(again.keypoints, sequence.keypoints, atol=1e-5)


def test_a_person_is_cut_out_with_its_joints():
    y, x = np.indices((60, 80)) + 0.5
    inside = ((x - 31) / 8) ** 2 + ((y - 34) / 20) ** 2 <= 1
    frame = (255 * inside).astype(np.uint8)
    points = np.array([[31.0, 14], [31, 34], [31, 54], [39, 34]] + [[31, 34]] * 13)
    cut, moved = fit_frames(frame[None], points[None], size=(40, 28), fit="person")
    assert cut.shape == (1, 40, 28)
    np.testing.assert_allclose(moved[0, 0], [0.5, 0], atol=0.02)
    np.testing.assert_allclose(moved[0, 1], [0.5, 0.5], atol=0.02)
    np.testing.assert_allclose(moved[0, 2], [0.5, 1], atol=0.02)
    bright = cut[0] > 127
    assert bright.any(1).all()  # from the first row to the last
    columns = np.flatnonzero(bright.any(0))
    assert abs((columns[0] + columns[-1] + 1) / 2 - 14) <= 0.5
    assert abs(columns[-1] + 1 - 28 * moved[0, 3, 0]) <= 1


def test_every_fault_of_a_sequence_is_named(tmp_path):
    put(tmp_path, "1/a", person(3, 20, 16))
    put_images(tmp_path, "1/b", [*person(2), person(1, 18, 16)[0]])
    put(tmp_path, "1/c", np.zeros((0, 16, 11), np.uint8))
    (tmp_path / "1/d").mkdir()
    put(tmp_path, "1/e", person() * 0)
    put(tmp_path, "1/f", np.concatenate([person() * 0, person(1)]))
    put(tmp_path, "1/g", person(1))
    put(tmp_path, "1/h", np.float32(person()))
    put(tmp_path, "1/i", person()[0])
    put(tmp_path, "1/j", person())
    put(tmp_path, "1/j", person(), "other.pkl")
    put_images(tmp_path, "1/k", person())
    put(tmp_path, "1/k", b"\x89PNG no", "9.png")
    cases = {
        "a": ("wrong size", "must have 16 rows and at least 11 columns; got 20 x 16"),
        "b": ("broken sequence", r"frames must have one size; got \[\(16, 16\), \(18"),
        "c": ("no frames", "holds no frame"),
        "d": ("no frames", "holds no frame"),
        "e": ("no frames", "3 of 3, show nobody"),
        "h": ("broken sequence", "an array of another type than uint8, bool"),
        "i": ("broken sequence", r"must be \[T, H, W\]; got \[16, 16\]"),
        "j": ("broken sequence", "one pickle must be the silhouettes'"),
        "k": ("broken sequence", "9.png: the image must be a whole"),
    }
    for key, (kind, reason) in cases.items():
        sequence, bad = read_sequence(tmp_path, f"1/{key}", WIDE, is_probe=False)
        assert sequence is None
        assert [b.kind for b in bad] == [kind]
        with pytest.raises(AssertionError, match=reason):
            raise AssertionError(bad[0].reason)
    some, bad = read_sequence(tmp_path, "1/f", WIDE, is_probe=False)
    assert len(some.silhouettes) == 1
    assert (bad[0].kind, bad[0].reason) == (
        "empty frames", "frames [0, 1, 2], 3 of 4, show nobody",
    )  # fmt: skip
    one, bad = read_sequence(tmp_path, "1/g", WIDE, is_probe=False)
    assert (len(one.silhouettes), bad) == (1, [])


def test_faults_of_joints_leave_them_out_and_are_named(tmp_path):
    put(tmp_path / "sil", "1/a", person())
    far = joints()
    far[0, 3, 0] = 60
    far[1, 4, 1] = np.nan
    cases = [
        (joints(4), "joints of other length", 0),
        (joints()[:, :5], "broken joints", 0),
        (np.array(["x"]), "broken joints", 0),
        (far, "far joints", 3 * 17 - 2),
    ]
    for i, (array, kind, known) in enumerate(cases):
        np.savez(tmp_path / f"{i}.npz", **{"1/a": array})
        settings = Settings(SIZE, joints=open_joints(tmp_path / f"{i}.npz"))
        sequence, bad = read_sequence(tmp_path / "sil", "1/a", settings, is_probe=False)
        assert [b.kind for b in bad] == [kind]
        assert sequence.joint_mask.sum() == known
        assert np.isfinite(sequence.keypoints).all() or kind == "far joints"
    settings = Settings(SIZE, joints=lambda key: None)
    _, bad = read_sequence(tmp_path / "sil", "1/a", settings, is_probe=False)
    assert [b.kind for b in bad] == ["missing joints"]
    (tmp_path / "bad.csv").write_text("key,frame,x\n1/a,0,5,6\n")
    with pytest.raises(ValueError, match="line 2 of .* 34 or 51 numbers; got '1/a,0"):
        open_joints(tmp_path / "bad.csv")
    (tmp_path / "bad.npz").write_bytes(b"PK no")
    with pytest.raises(ValueError, match=r"must be an \.npz archive"):
        open_joints(tmp_path / "bad.npz")
    with pytest.raises(ValueError, match="got no such file"):
        open_joints(tmp_path / "nothing")


class Call:
    def __init__(self, *args):
        self.args = args

    def __reduce__(self):
        return os.system, self.args


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path):
    proof = tmp_path / "proof"
    put(tmp_path, "1/a", [person()[0], Call(f"touch {proof}")])
    sequence, bad = read_sequence(tmp_path, "1/a", WIDE, is_probe=False)
    assert sequence is None
    assert "got the name posix.system" in bad[0].reason
    assert not proof.exists()
    put(tmp_path, "1/b", np.array([None]))
    with pytest.raises(ValueError, match="another type than float32"):
        read_pickle(
            tmp_path / "1/b/090.pkl", caller="x", wanted="y", dtypes=("float32",)
        )


def test_import_and_its_report(tmp_path):
    source = tmp_path / "sil"
    for i in range(3):
        for kind in ("bg", "nm"):
            put(source, f"{i}/{kind}/090", person(2 + i))
    put(source, "2/zz/090", b"broken")
    (source / "3").mkdir()
    people = find_sequences(source)
    partition = {
        "TRAIN_SET": ["0", "9"],
        "TEST_SET": ["1", "2", "3"],
        "PROBE_SET": ["1-nm-090", "2/nm/090", "2-no-090"],
    }
    splits, bad = make_splits(people, partition=partition)
    assert {b.kind: b.key for b in bad} == {
        "empty identity": "3", "missing identity": "9", "missing probe": "2-no-090",
    }  # fmt: skip
    whole = GaitSource(str(source), splits, WIDE, tuple(bad))
    options = dict(name="mine", data_dir=tmp_path / "data")
    with pytest.raises(ValueError, match="got '3' with empty identity"):
        whole.write(**options)
    with pytest.raises(ValueError, match="got '2/zz/090' with broken sequence"):
        whole._replace(rejected=()).write(**options)
    assert not (tmp_path / "data" / "mine").exists()
    report = whole.write(on_error="skip", **options)
    assert report["train"] == {"people": 1, "sequences": 2}
    assert report["test"] == {"people": 2, "sequences": 4}
    assert {kind: b["count"] for kind, b in report["bad"].items()} == {
        "empty identity": 1, "missing identity": 1, "missing probe": 1,
        "broken sequence": 1,
    }  # fmt: skip
    stored = open_builder(tmp_path / "data", "mine").info.metadata["report"]
    assert stored == json.loads(json.dumps(report))
    test = open_gait(tmp_path / "data", "mine", "test", size=SIZE)
    assert test.labels.tolist() == [0, 0, 1, 1]
    assert test.probes.tolist() == [False, True, False, True]
    assert test.frames.tolist() == [3, 3, 4, 4]
    with pytest.raises(ValueError, match="must not exist yet"):
        whole.write(on_error="skip", **options)


def test_a_person_in_both_partitions_is_in_neither():
    people = {"a": ["a/1", "a/2"], "b": ["b/1"], "c": ["c/1"]}
    partition = {"TRAIN_SET": ["a", "b"], "TEST_SET": ["b", "c"]}
    splits, bad = make_splits(people, partition=partition)
    assert splits["train"].keys == ["a/1", "a/2"]
    assert splits["test"].keys == ["c/1"]
    assert [(entry.key, entry.kind) for entry in bad] == [("b/1", "in both splits")]


def test_a_partition_of_another_data_set():
    with pytest.raises(
        ValueError, match="must name people of the source; of x, y .* among a "
    ):
        make_splits({"a": ["a/1"]}, partition={"TRAIN_SET": ["x"], "TEST_SET": ["y"]})


def test_splits_without_a_partition():
    people = {"a": ["a/1", "a/2"], "b": ["b/1"], "c": ["c/2", "c/3"]}
    splits, bad = make_splits(people, test_identities=1)
    assert bad == []
    assert splits["train"].keys == ["a/1", "a/2", "b/1"]
    assert splits["test"] == Split(["c/2", "c/3"], {"c/2"})
    assert set(make_splits(people)[0]) == {"train"}
    with pytest.raises(ValueError, match=r"must lie in 0\.\.3; got 4"):
        make_splits(people, test_identities=4)
    with pytest.raises(ValueError, match="the lists TRAIN_SET and TEST_SET"):
        make_splits(people, partition={"TRAIN_SET": ["a"]})
    _, bad = make_splits(people, partition={"TRAIN_SET": ["a"], "TEST_SET": []})
    assert [tuple(b[:2]) for b in bad] == [
        (key, "in no split") for key in ("b/1", "c/2", "c/3")
    ]
