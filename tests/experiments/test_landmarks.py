"""Errors on labeled photos, with a network that is off by a known distance."""

import io
import tarfile

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments.kprpe.landmarks import measure, read_photos
from kprpe_jax.data.importers.landmarks import read_landmarks
from kprpe_jax.detection.detections import Detections
from kprpe_jax.detection.detector import Detector
from kprpe_jax.report.landmark_errors import plot_cumulative

# In pixels of photos of 40 x 40, pixel centers at whole numbers.
POINTS = np.float32([[9.5, 9.5], [29.5, 9.5], [19.5, 19.5], [11.5, 29.5], [27.5, 29.5]])


def detector_off_by(pixels):
    """Says the labeled points, moved to the right; black photos hold no face."""

    def detect(images):
        points = (POINTS + 0.5 + [pixels, 0]) / 40
        bright = np.asarray(images)[:, 20, 20].max(-1) > -0.9
        batch = len(images)
        return Detections(
            jnp.tile(np.float32([0, 0, 1, 1]), (batch, 1, 1)),
            jnp.tile(np.float32(points), (batch, 1, 1, 1)),
            jnp.ones((batch, 1)),
            jnp.asarray(bright)[:, None],
        )

    return Detector("shifted", detect, (40,), enlarge=True)


@pytest.fixture
def photos(tmp_path):
    """A folder and an archive of three photos, and the points of two of them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, level in (("a.png", 200), ("b.png", 0), ("c.png", 200)):
        Image.new("RGB", (40, 40), (level,) * 3).save(folder / name)
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.add(file, file.name)
    names = np.array([b"a.png", b"b.png"])
    np.savez(tmp_path / "points.npz", names=names, points=np.stack([POINTS] * 2))
    return tmp_path


def test_errors_are_those_made(photos):
    labels = read_landmarks(photos / "points.npz", units="pixel")
    for source in ("photos", "photos.tar"):
        errors = measure(detector_off_by(2.0), read_photos(photos / source), labels)
        np.testing.assert_allclose(np.sort(errors["eyes"]), [0.1, np.inf], rtol=1e-4)
        np.testing.assert_allclose(np.sort(errors["box"]), [0.1, np.inf], rtol=1e-4)


def test_points_of_other_photos_are_refused(photos):
    np.savez(photos / "points.npz", names=np.array([b"z.png"]), points=POINTS[None])
    labels = read_landmarks(photos / "points.npz", units="pixel")
    with pytest.raises(ValueError, match="got none for any of them, .*'z.png'"):
        measure(detector_off_by(0.0), read_photos(photos / "photos"), labels)


def test_a_broken_archive_is_one_sentence(photos):
    with tarfile.open(photos / "bad.tar", "w") as archive:
        member = tarfile.TarInfo("../a.png")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"abc"))
    with pytest.raises(ValueError, match="must hold photos only; got ../a.png"):
        list(read_photos(photos / "bad.tar"))


def test_draws_the_curve(tmp_path):
    path = tmp_path / "errors.png"
    plot_cumulative({"eyes": np.array([0.05, 0.1, np.inf])}, path)
    assert path.read_bytes().startswith(b"\x89PNG")
