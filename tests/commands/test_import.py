"""The import command: each kind from a source on disk to rows that open."""

import json
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from kprpe_jax import registry
from kprpe_jax.data import store
from kprpe_jax.data.importers.decode import decode_rgb
from kprpe_jax.geometry.template import ARCFACE_112
from tests.commands.run_import import run_import
from tests.data.importers.sources import (
    SHARED,
    encode,
    face,
    insightface_rec,
    needs_shared,
)


def run(tmp_path, kind, source, *, split="train", **options):
    """Run the command; return its rows and report."""
    run_import(tmp_path, kind, source=source, split=split, **options)
    report = tmp_path / "data" / "faces" / "1.0.0" / "import_report.json"
    rows = store.open_split(tmp_path / "data", "faces", split)
    return list(rows), json.loads(report.read_text())


def test_every_kind_is_registered_and_listed_quickly():
    for path in registry.IMPORTERS.values():
        assert callable(registry.resolve(path))
    command = [sys.executable, "-X", "importtime", "-m", "kprpe_jax", "import", "-h"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "  wider_face, arrays, prepared, gait, idx.\n" in run.stdout
    for heavy in ("jax", "tensorflow_datasets", "PIL"):
        assert f"| {heavy}\n" not in run.stderr


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
        f"150 given: 150 used, 0 left out; faces: 150 images, {report['identities']} id"
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
    with pytest.raises(ValueError, match=r"^import: .*'bob/1\.jpg'"):
        run(tmp_path, "folder", tmp_path / "in")
    rows, report = run(tmp_path, "folder", tmp_path / "in", on_error="skip")
    assert len(rows) == 1
    assert set(report["bad"]) == {"broken image", "empty identity"}
    out = capsys.readouterr().out
    assert "3 given: 1 used, 2 left out (broken image 1, empty identity 1); " in out


def test_truncated_archive(tmp_path):
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        for i in range(3):
            (tmp_path / f"{i}.jpg").write_bytes(face(i))
            archive.add(tmp_path / f"{i}.jpg", f"ann/{i}.jpg")
    content = (tmp_path / "t.tar").read_bytes()
    (tmp_path / "t.tar").write_bytes(content[: content.index(b"ann/2.jpg") + 700])
    with pytest.raises(ValueError, match=r"'t\.tar' with truncated archive \(ends aft"):
        run(tmp_path, "tar", tmp_path / "t.tar")
    rows, report = run(tmp_path, "tar", tmp_path / "t.tar", on_error="skip")
    assert len(rows) == 2
    assert report["bad"]["truncated archive"]["count"] == 1


def test_errors_end_the_command_and_leave_nothing(tmp_path):
    with pytest.raises(ValueError, match="nowhere must be a tar archive"):
        run(tmp_path, "tar", tmp_path / "nowhere")
    (tmp_path / "points.csv").write_text("a.jpg" + ",50" * 10)
    (tmp_path / "list").write_text("a.jpg 1\n")
    (tmp_path / "a.jpg").write_bytes(face(1))
    with pytest.raises(ValueError, match="pass --landmark-units pixel"):
        run(tmp_path, "list", tmp_path / "list", landmarks=str(tmp_path / "points.csv"))
    with pytest.raises(ValueError, match="--joints: is for gait only; got kind list"):
        run(tmp_path, "list", tmp_path / "list", joints="joints.npz")
    assert not (tmp_path / "data").exists()


def test_gait(tmp_path, capsys):
    bars = np.zeros((16, 16, 3), np.uint8)
    bars[1:-1, 6:10] = 255
    for key in ("0/nm/090", "1/bg/090", "1/nm/090"):
        (tmp_path / "in" / key).mkdir(parents=True)
        (tmp_path / "in" / key / "0.png").write_bytes(encode(bars, "PNG"))
    (tmp_path / "in" / "2").mkdir()
    options = dict(source=tmp_path / "in", name="mine", image_size="16x11")
    with pytest.raises(ValueError, match="got '2' with empty identity"):
        run_import(tmp_path, "gait", test_identities=2, **options)
    run_import(tmp_path, "gait", test_identities=2, on_error="skip", **options)
    assert capsys.readouterr().out.startswith(
        "4 given: 3 used, 1 left out (empty identity 1); mine: 3 sequences, 2 "
        "identities (train 1, test 2); in "
    )
    report = json.loads((tmp_path / "data/mine/1.0.0/import_report.json").read_text())
    assert (report["rows"], report["bad"]["empty identity"]["count"]) == (3, 1)
    with pytest.raises(ValueError, match="--name: .* must not exist yet"):
        run_import(tmp_path, "gait", on_error="skip", **options)
    with pytest.raises(ValueError, match="--pairs: is for faces only; got kind gait"):
        run_import(tmp_path, "gait", pairs="pairs.txt", **options)


def test_idx(tmp_path, idx_dir, capsys):
    run_import(tmp_path, "idx", source=idx_dir, name="mnist")
    assert capsys.readouterr().out.startswith(
        "30 given: 30 used, 0 left out; mnist: 30 images, 10 identities (train "
    )
    assert len(store.open_split(tmp_path / "data", "mnist", "train")) == 23
    with pytest.raises(ValueError, match="--name: must be small letters"):
        run_import(tmp_path, "idx", source=idx_dir, name="MNIST")


@needs_shared
@pytest.mark.slow
def test_real_detector_on_real_photos(tmp_path):
    weights = str(SHARED / "weights" / "retinaface_mnet025.npz")
    rows, report = run(
        tmp_path, "folder", SHARED / "lfw_small" / "lfw-align-128",
        detector=f"retinaface_mnet025:{weights}",
    )  # fmt: skip
    assert report["keypoints_from"] == {"detector": 10}
    # Eyes and mouth are a similarity away from the template; a head that is turned
    # moves its nose.
    rigid = [0, 1, 3, 4]
    for row in rows:
        points = row["keypoints"][rigid] @ np.array([1, 1j])
        template = ARCFACE_112[rigid] @ np.array([1, 1j])
        points, template = points - points.mean(), template - template.mean()
        turn = (points.conj() * template).sum() / (np.abs(points) ** 2).sum()
        off = np.abs(turn * points - template) / np.abs(template[0] - template[1])
        assert off.max() < 0.2


@needs_shared
def test_faults_of_the_detector_are_one_sentence(tmp_path):
    folder = SHARED / "lfw_small" / "lfw-align-128"
    with pytest.raises(ValueError, match="--detector retinaface_mnet025: must be NAME"):
        run(tmp_path, "folder", folder, detector="retinaface_mnet025")
    table = str(SHARED / "lfw" / "lfw_df_landmarks.npz")
    spec = f"retinaface_mnet025:{table}"
    with pytest.raises(ValueError, match="must be alone; got a landmark table"):
        run(
            tmp_path, "folder", folder, detector=spec, detect="all", landmarks=table,
            landmark_units="pixel", landmark_array="points112",
        )  # fmt: skip
    with pytest.raises(ValueError, match="does not fit this RetinaFace"):
        run(tmp_path, "folder", folder, detector=spec)
    with pytest.raises(ValueError, match="--faces all: an imported image has one face"):
        run(tmp_path, "folder", folder, detector=spec, faces="all")
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
def test_the_command_says_what_it_imports(tmp_path):
    (tmp_path / "in" / "ann").mkdir(parents=True)
    (tmp_path / "in" / "ann" / "1.jpg").write_bytes(face(1))
    command = [sys.executable, "-m", "kprpe_jax", "import", "folder", "--name", "mine"]
    command += ["--source", str(tmp_path / "in"), "--data-dir", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("1 given: 1 used, 0 left out; mine: 1 images, ")
    run = subprocess.run([*command, "--split=test"], capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.startswith("error: import: ")


def test_celeba_in_its_own_files(tmp_path, capsys):
    """identity_CelebA.txt beside the images, and the landmark list."""
    for number in (1, 2, 3):
        (tmp_path / f"00000{number}.jpg").write_bytes(face(number, 218, 178))
    (tmp_path / "identity_CelebA.txt").write_text(
        "000001.jpg 2880\n000002.jpg 2937\n000003.jpg 2880\n"
    )
    points = "{} 69  109  106  113   77  142   73  152  108  154\n"
    (tmp_path / "list_landmarks_align_celeba.txt").write_text(
        "3\nlefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x "
        "leftmouth_y rightmouth_x rightmouth_y\n"
        + "".join(points.format(f"00000{number}.jpg") for number in (1, 2, 3))
    )
    rows, report = run(
        tmp_path,
        "list",
        tmp_path / "identity_CelebA.txt",
        landmarks=tmp_path / "list_landmarks_align_celeba.txt",
        landmark_units="pixel",
    )
    assert [row["identity"].item() for row in rows] == [b"2880", b"2937", b"2880"]
    assert report["keypoints_from"] == {"table": 3}
    np.testing.assert_allclose(
        rows[0]["keypoints"][0], [69.5 / 178, 109.5 / 218], rtol=1e-6
    )
