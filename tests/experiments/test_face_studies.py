"""Studies of face data as commands: agreement of keypoints, difficulty."""

import json
import subprocess
import sys

import numpy as np
import pytest

from kprpe_jax.data.importers.dataset import write_dataset
from kprpe_jax.data.importers.record import Record, RecordSource
from tests.data.importers.sources import face

pytestmark = pytest.mark.slow
EYES = np.array([[0.3, 0.5], [0.7, 0.5], [0.5, 0.6], [0.4, 0.8], [0.6, 0.8]], "f4")


def run(module, *flags):
    command = [sys.executable, "-m", "experiments", module, *flags]
    return subprocess.run(command, capture_output=True, text=True)


def test_agreement_in_eye_distances(tmp_path):
    """Images of 12 x 10 pixels: eyes 4 apart; moved by 0, 1 and 2 pixels along y."""
    moves = {"a": [0, 0, 0, None], "b": [0, 1 / 12, 2 / 12, 0], "c": [0, None, 1 / 12]}
    for name, rows in moves.items():
        entries = [
            Record(
                str(i),
                face(i),
                0,
                keypoints=None if y is None else np.float32(EYES + [0, y]),
            )
            for i, y in enumerate(rows)
        ]
        source = RecordSource(lambda start, entries=entries: iter(entries), state="s")
        write_dataset(source, name=name, data_dir=tmp_path, origin={})
    flags = "--data-dir", str(tmp_path), "--first", "a", "--second"
    out = run("keypoint_agreement", *flags, "b").stdout
    assert out.startswith("3 images, 0 without keypoints in b; distance over eye dist")
    assert "median 25.0 %, mean 25.0 %" in out
    assert "above 10 %: 66.7 % of images" in out
    out = run("keypoint_agreement", *flags, "c").stdout
    assert out.startswith("3 images, 1 without keypoints in c")
    assert "median 12.5 %" in out  # of those found
    assert "mouth corners: 12.5, 12.5, 12.5, 12.5, 12.5 %" in out


def test_difficulty_from_drawing_to_the_table(tmp_path):
    fields = {
        "data.dir": tmp_path / "data",
        "data.image_shape": (32, 32, 3),
        "data.batch_size": 8,
        "data.num_classes": 4,
        "data.builder.num_identities": 4,
        "data.builder.num_test_identities": 3,
        "data.builder.images_per_identity": 4,
        "data.builder.size": 32,
        "model.image_size": (32, 32),
        "model.depth": 1,
        "steps": 2,
        "optimizer.warmup": 1,
        "evals.aligned.pairs": 20,
        "evals.misaligned_1.pairs": 20,
        "evals.swapped.pairs": 20,
        "evals.batch_size": 8,
        "evals.in_training": (),
        "checkpoint.best_metric": "",
    }
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    done = run(
        "synthetic_difficulty", "--config", "configs/synthetic_faces.py:absolute",
        "--output", str(tmp_path / "out"), "--difficulties=0,1", *flags,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "out" / "difficulty.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in table[2:]] == ["| 0", "| 1"]
    # Without nuisances all pictures of a person are the same. Ten impostor pairs have
    # no rate of false alarms of 1 %.
    assert table[0] == "| difficulty | network, accuracy | pixels, accuracy |"
    assert table[2] == "| 0 | 100.0 | 100.0 |"
    saved = json.loads((tmp_path / "out/runs/0/difficulty_1.json").read_text())
    assert f"{100 * saved['aligned/accuracy']:.1f}" == table[3].split(" | ")[1]
    assert (tmp_path / "data" / "difficulty_0" / "synthetic_faces").is_dir()
