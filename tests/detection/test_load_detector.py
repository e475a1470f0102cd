"""Detectors by their SPEC: published files, and a run of the aligner."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from kprpe_jax.detection.photos import detect_photos
from kprpe_jax.recognizers import load_detector
from kprpe_jax.registry import network
from kprpe_jax.training import loop
from kprpe_jax.weights.load import export_weights
from tests.detection.stand_in import smooth_photo
from tests.tasks import test_landmarks

WEIGHTS = Path(__file__).parents[3] / "shared/data/weights/retinaface_mnet025.npz"


def write_weights(name, path, rng):
    """A published detector's file with random weights."""
    module = network(name, "detector").make()
    images = jax.ShapeDtypeStruct((1, 160, 160, 3), np.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)

    def draw(leaf):
        return rng.uniform(0.1, 0.2, leaf.shape).astype(np.float32)

    variables = jax.tree.map(draw, shapes)
    np.savez(path, **export_weights(module, variables))
    return f"{name}:{path}"


@pytest.fixture(scope="module")
def retinaface(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "a.npz"
    return write_weights("retinaface_mnet025", path, np.random.default_rng(0))


def test_a_published_detector_with_its_options(retinaface):
    detector = load_detector(retinaface, max_side=300)
    assert detector.name == "retinaface_mnet025"
    assert detector.canvases == (128, 256, 300)
    assert not detector.enlarge
    assert "WIDER FACE" in detector.license
    other = load_detector(retinaface, max_side=300, min_score=0.1)
    assert len(detector.fingerprint) == 64
    assert detector.fingerprint != other.fingerprint


def test_the_published_aligner(tmp_path, rng):
    spec = write_weights("dfa_mobilenet025", tmp_path / "a.npz", rng)
    detector = load_detector(spec)
    assert detector.canvases == (160,)
    assert detector.enlarge


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "nowhere",
            "--detector nowhere: must be NAME:FILE, .*weights, or the folder of a",
        ),
        (
            "retinaface_mnet025:none.npz",
            "there is no file none.npz for retinaface_.*; check the path",
        ),
        ("retinaface:none.npz", "unknown detector .* did you mean retinaface_mnet025"),
        (
            "iresnet_ir50:none.npz",
            "iresnet_ir50 is a recognizer network; a detector is needed",
        ),
    ],
)
def test_faults_are_one_sentence(spec, message):
    with pytest.raises(ValueError, match=message):
        load_detector(spec)


def test_a_file_of_another_detector_is_refused(retinaface):
    with pytest.raises(ValueError, match="does not fit this DifferentiableAligner"):
        load_detector(retinaface.replace("retinaface_mnet025", "dfa_mobilenet025"))
    with pytest.raises(ValueError, match="--max-side must be at least 32 pixels"):
        load_detector(retinaface, max_side=16)


def test_a_run_of_another_task_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"task": "classification", "version": 2})
    )
    with pytest.raises(ValueError, match="must be a run of landmarks; got one of cla"):
        load_detector(str(tmp_path))


@pytest.mark.slow
def test_a_run_of_the_aligner(tmp_path, rng):
    """What was trained detects; another checkpoint is another detector."""
    config = test_landmarks.make_config(**{"steps": 2, "checkpoint.every_steps": 1})
    workdir = tmp_path / "run"
    loop.train(config, workdir)
    specs = [f"{workdir}{checkpoint}" for checkpoint in ("", "@last", "@1")]
    best, last, other = (load_detector(spec, min_score=0.0) for spec in specs)
    assert best.fingerprint == last.fingerprint != other.fingerprint
    assert best.canvases == (32,)
    assert best.enlarge
    photos = [("a", smooth_photo(rng, 40, 50)), ("b", smooth_photo(rng, 20, 10))]
    for photo in detect_photos(best, photos, batch_size=2):
        assert photo.keypoints.shape == (1, 5, 2)
        assert np.isfinite(photo.keypoints).all()
    with pytest.raises(ValueError, match="has no '7'; ask for best, last or one of"):
        load_detector(f"{workdir}@7")


@pytest.mark.slow
@pytest.mark.skipif(not WEIGHTS.is_file(), reason=f"no weights at {WEIGHTS}")
def test_the_released_file_detects_the_faces_of_photos():
    from kprpe_jax.data.read_photos import read_photos

    detector = load_detector(f"retinaface_mnet025:{WEIGHTS}", max_side=256)
    photos = list(read_photos(WEIGHTS.parents[1] / "photos" / "images"))
    found = list(detect_photos(detector, photos, batch_size=4))
    assert [f.name for f in found] == [name for name, _ in photos]
    for photo in found:
        assert photo.scores[0] > 0.9
        low, high = np.split(photo.boxes[0], 2)
        assert ((photo.keypoints[0] > low) & (photo.keypoints[0] < high)).all()
