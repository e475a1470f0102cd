"""The command: each kind from a source on disk to rows that open."""

import json
import tarfile

import numpy as np
import pytest
from absl.testing import flagsaver

from kprpe_jax.data import import_faces, store
from kprpe_jax.data.importers.decode import decode_rgb
from tests.data.importers.sources import SHARED, face, insightface_rec, needs_shared


def run(tmp_path, kind, source, *, split="train", **flags):
    """Run the command; return its rows and report."""
    flags |= {"kind": kind, "source": str(source), "name": "faces", "split": split}
    with flagsaver.flagsaver(data_dir=str(tmp_path / "data"), **flags):
        import_faces.main([""])
    report = tmp_path / "data" / "faces" / "1.0.0" / "import_report.json"
    rows = store.open_split(tmp_path / "data", "faces", split)
    return list(rows), json.loads(report.read_text())


@needs_shared
def test_part_of_the_real_lfw_archive_with_its_landmarks(tmp_path, capsys):
    lfw = SHARED / "lfw"
    with (
        tarfile.open(lfw / "lfw_df_aligned112.tar.gz") as whole,
        tarfile.open(tmp_path / "part.tar.gz", "w:gz") as part,
    ):
        for _ in range(150):
            member = whole.next()
            part.addfile(member, whole.extractfile(member))
    rows, report = run(
        tmp_path,
        "tar",
        tmp_path / "part.tar.gz",
        landmarks=str(lfw / "lfw_df_landmarks.npz"),
        landmark_units="pixel",
        landmark_array="points112",
    )
    with np.load(lfw / "lfw_df_landmarks.npz") as table:
        names, points = table["names"][:150], table["points112"][:150]
    for row, name, point in zip(rows, names, points, strict=True):
        assert row["key"] == name
        assert row["identity"].item() == name.split(b"/")[0]
        np.testing.assert_allclose(row["keypoints"], (point + 0.5) / 112, rtol=1e-6)
        assert row["has_keypoints"]
    assert decode_rgb(rows[9]["image"].item()).shape == (112, 112, 3)
    assert report["unused_landmark_rows"] == 11817 - 150
    out = capsys.readouterr().out
    assert out.startswith(
        f"faces: 150 images, {report['identities']} identities; bad: "
    )


@needs_shared
def test_real_verification_set(tmp_path):
    path = SHARED / "insightface" / "small_lfw.bin"
    rows, _ = run(tmp_path, "insightface_bin", path, split="test")
    assert [int(row["pair"]) for row in rows] == [i // 2 for i in range(20)]
    assert {int(row["label"]) for row in rows} == {-1}
    with np.load(tmp_path / "data/faces/1.0.0/tables.npz") as tables:
        assert tables["pair_same"].tolist() == [True] * 10


@needs_shared
def test_real_list(tmp_path):
    rows, report = run(tmp_path, "list", SHARED / "insightface" / "small_dataset")
    assert [int(row["label"]) for row in rows] == list(range(10))
    assert report["num_classes"] == 10


def test_record_file(tmp_path):
    folder = insightface_rec(tmp_path / "rec", [1, 0, 1], classes=2)
    rows, report = run(tmp_path, "insightface_rec", folder)
    assert [row["image"].item() for row in rows] == [face(i) for i in (1, 2, 3)]
    assert [int(row["label"]) for row in rows] == [1, 0, 1]
    assert report["origin"]["kind"] == "insightface_rec"


def test_folder_with_bad_entries(tmp_path, capsys):
    for name in ("ann", "bob", "cid"):
        (tmp_path / "in" / name).mkdir(parents=True)
    (tmp_path / "in" / "ann" / "1.jpg").write_bytes(face(1))
    (tmp_path / "in" / "bob" / "1.jpg").write_bytes(face(1)[:-40])
    with pytest.raises(SystemExit, match=r"error: import_faces: .*'bob/1\.jpg'"):
        run(tmp_path, "folder", tmp_path / "in")
    rows, report = run(tmp_path, "folder", tmp_path / "in", on_error="skip")
    assert len(rows) == 1
    assert set(report["bad"]) == {"broken image", "empty identity"}
    out = capsys.readouterr().out
    assert "bad: broken image 1, empty identity 1; in " in out


def test_truncated_archive(tmp_path):
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        for i in range(3):
            (tmp_path / f"{i}.jpg").write_bytes(face(i))
            archive.add(tmp_path / f"{i}.jpg", f"ann/{i}.jpg")
    content = (tmp_path / "t.tar").read_bytes()
    (tmp_path / "t.tar").write_bytes(content[: content.index(b"ann/2.jpg") + 700])
    with pytest.raises(SystemExit, match=r"'t\.tar' with truncated archive \(ends aft"):
        run(tmp_path, "tar", tmp_path / "t.tar")
    rows, report = run(tmp_path, "tar", tmp_path / "t.tar", on_error="skip")
    assert len(rows) == 2
    assert report["bad"]["truncated archive"]["count"] == 1


def test_errors_end_the_command_and_leave_nothing(tmp_path):
    with pytest.raises(SystemExit, match="error: open_tar_images: .* must be a tar"):
        run(tmp_path, "tar", tmp_path / "nowhere")
    (tmp_path / "points.csv").write_text("a.jpg" + ",50" * 10)
    (tmp_path / "list").write_text("a.jpg 1\n")
    (tmp_path / "a.jpg").write_bytes(face(1))
    with pytest.raises(SystemExit, match="pass --landmark_units pixel"):
        run(tmp_path, "list", tmp_path / "list", landmarks=str(tmp_path / "points.csv"))
    with pytest.raises(SystemExit, match=r"given by flags; got \['extra'\]"):
        import_faces.main(["", "extra"])
    assert not (tmp_path / "data").exists()
