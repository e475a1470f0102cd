"""Photos and videos to aligned faces, with a network that always says the same."""

import csv
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from kprpe_jax import align_photos as command
from kprpe_jax.alignment.align import align_faces
from kprpe_jax.alignment.photos import (
    Finder,
    FoundFaces,
    align_found,
    align_patches,
    cut_patch,
    detector_finder,
    find_in_photos,
    patch_side,
)
from kprpe_jax.data.importers.landmarks import read_landmarks
from kprpe_jax.detection.detections import Faces
from kprpe_jax.geometry.template import face_template

SIZE = (32, 32)
POINTS = np.float32([[0.4, 0.4], [0.6, 0.42], [0.5, 0.5], [0.42, 0.6], [0.58, 0.61]])


def smooth_photo(rng, height, width):
    """A photo without detail, so that interpolation hardly matters."""
    coarse = rng.integers(0, 256, (5, 5, 3)).astype(np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), 3))


def finder_of(points=POINTS, *, canvases=(64, 128), enlarge=False, seen=None):
    """Two faces in the middle of every canvas that is not black there."""

    def find(images):
        if seen is not None:
            seen.append(images.shape)
        batch, side = images.shape[:2]
        boxes = np.float32([[0.4, 0.4, 0.5, 0.5], [0.2, 0.2, 0.7, 0.7]])
        bright = np.asarray(images)[:, side // 2, side // 2].max(-1) > -0.9
        return Faces(
            jnp.tile(boxes, (batch, 1, 1)),
            jnp.tile(np.stack([points[::-1], points]), (batch, 1, 1, 1)),
            jnp.tile(np.float32([0.9, 0.8]), (batch, 1)),
            jnp.asarray(np.stack([bright, bright], 1)),
        )

    return Finder(find, canvases, enlarge)


@pytest.mark.parametrize(
    ("shape", "canvas"),
    [((40, 60), 64), ((90, 128), 128), ((512, 384), 128), ((3, 3), 64)],
)
def test_points_return_to_the_photo_from_the_middle_of_its_canvas(shape, canvas, rng):
    seen = []
    photo = smooth_photo(rng, *shape)
    (found,) = find_in_photos(finder_of(seen=seen), [("a", photo)], batch_size=2)
    assert seen == [(2, canvas, canvas, 3)]
    scale = min(1, canvas / max(shape))
    size = np.round(np.array(shape[::-1]) * scale)
    want = (POINTS * canvas - (canvas - size) // 2) / size
    np.testing.assert_allclose(found.keypoints[0], want, rtol=1e-5)  # largest first
    np.testing.assert_allclose(found.scores, [0.8, 0.9])


def test_small_photos_are_enlarged_for_the_aligner(rng):
    finder = finder_of(canvases=(64,), enlarge=True)
    photo = smooth_photo(rng, 8, 16)
    (found,) = find_in_photos(finder, [("a", photo)], batch_size=1)
    want = (POINTS * 64 - [0, 16]) / [64, 32]
    np.testing.assert_allclose(found.keypoints[0], want, rtol=1e-5)


def test_every_photo_is_found_once_whatever_the_batches(rng):
    photos = [(str(i), smooth_photo(rng, *rng.integers(20, 130, 2))) for i in range(11)]
    found = list(find_in_photos(finder_of(), photos, batch_size=4))
    assert sorted(f.name for f in found) == sorted(name for name, _ in photos)
    for row in found:
        assert row.photo is dict(photos)[row.name]


def test_a_patch_aligns_as_its_photo(rng):
    photo = rng.integers(0, 256, (150, 140, 3)).astype(np.uint8)
    points = face_template((40, 40)) @ np.float32([[0.9, 0.3], [-0.3, 0.9]])
    points = (points + [60, 30]) / [140, 150]
    align = jax.jit(align_faces, static_argnames="size")
    want = align(jnp.float32(photo[None]) / 127.5 - 1, points[None], size=SIZE)
    patch, moved = cut_patch(photo, points, size=SIZE)
    assert patch.shape == (patch_side(SIZE),) * 2 + (3,)
    got = align_patches(patch[None], moved[None], size=SIZE)
    np.testing.assert_allclose(got.images, want.images, atol=1e-4)
    np.testing.assert_allclose(got.keypoints, want.keypoints, atol=1e-5)


def test_a_large_face_is_shrunk_without_aliasing(rng):
    """Fine stripes become gray, and a smooth face stays what it is."""
    stripes = np.zeros((1200, 1200, 3), np.uint8)
    stripes[:, ::2] = 255
    smooth = smooth_photo(rng, 1200, 1200)
    template = face_template(SIZE) / SIZE[0]
    for photo in (stripes, smooth):
        found = FoundFaces("a", photo, template[None], np.ones(1))
        images, points = align_found(found, size=SIZE, faces=[0])
        want = np.asarray(Image.fromarray(photo).resize(SIZE, Image.Resampling.BOX))
        inner = np.s_[0, 1:-1, 1:-1]
        error = np.abs(images[inner].astype(int) - want[1:-1, 1:-1])
        assert error.max() < 8
        np.testing.assert_allclose(points[0], template, atol=1e-3)


@pytest.mark.parametrize("points", [np.full((5, 2), 0.5), POINTS * [-1, 1] + [1, 0]])
def test_degenerate_points_give_a_finite_patch(points, rng):
    photo = smooth_photo(rng, 50, 60)
    patch, moved = cut_patch(photo, np.float32(points), size=SIZE)
    assert patch.shape == (patch_side(SIZE),) * 2 + (3,)
    assert np.isfinite(moved).all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    source = tmp_path_factory.mktemp("photos")
    (source / "b").mkdir()
    rng = np.random.default_rng(1)
    for name, shape in (("a.png", (60, 50)), ("a.jpg", (200, 90)), ("b/c.jpg", (9, 9))):
        image = 127 + smooth_photo(rng, *shape) // 2
        Image.fromarray(image).save(source / name)
    Image.new("RGB", (70, 70)).save(source / "black.png")
    (source / "broken.jpg").write_bytes(b"\xff\xd8no")
    (source / "notes.txt").write_text("no photo")
    (source / ".hidden.png").write_bytes(b"")
    output = source.parent / "out"
    photos = command.read_photos(source)
    counts = command.align_photos(photos, finder_of(), output, size=SIZE)
    return source, output, counts


def read_csv(path):
    with path.open() as file:
        return list(csv.reader(file))


def test_a_folder_becomes_faces_and_tables(folder):
    _, output, counts = folder
    assert counts == dict(photos=5, faces=3, without_face=1, unreadable=1)
    names = {"a.jpg", "a.png", "b/c.jpg"}
    table = read_landmarks(output / "landmarks.csv", units="fraction")
    assert set(table.rows) == names
    faces = sorted(p.relative_to(output) for p in output.rglob("aligned/**/*.png"))
    aligned = read_landmarks(output / "aligned_landmarks.csv", units="fraction")
    assert {f"aligned/{name}" for name in aligned.rows} == set(map(str, faces))
    assert set(aligned.rows) == {"a.jpg.png", "a.png.png", "b/c.jpg.png"}
    for name in aligned.rows:  # the similarity brings any five points near the template
        points = aligned.find(name, *SIZE) * 32
        assert np.abs(points - face_template(SIZE)).max() < 4
        assert Image.open(output / "aligned" / name).size == SIZE
    assert (output / "contact_sheet_000.png").is_file()


def test_photos_without_a_face_are_listed(folder):
    header, *rows = read_csv(folder[1] / "without_face.csv")
    assert header == ["name", "reason"]
    assert rows[0] == ["black.png", "no face"]
    assert rows[1][0] == "broken.jpg"
    assert "whole JPEG" in rows[1][1]


def test_all_faces_are_numbered(tmp_path, rng):
    photos = [("x.jpg", 127 + smooth_photo(rng, 60, 60) // 2)]
    counts = command.align_photos(
        photos, finder_of(), tmp_path / "out", size=SIZE, all_faces=True
    )
    assert counts["faces"] == 2
    names = [row[0] for row in read_csv(tmp_path / "out" / "aligned_landmarks.csv")]
    assert names == ["name", "x.jpg_0.png", "x.jpg_1.png"]


def test_nothing_is_left_of_a_run_that_failed(folder, tmp_path, rng):
    source, output, _ = folder
    with pytest.raises(ValueError, match="must not be there yet; it is"):
        command.align_photos(command.read_photos(source), finder_of(), output)
    with pytest.raises(ValueError, match="must hold photos; got none"):
        command.align_photos([], finder_of(), tmp_path / "out")

    def stops():
        yield "x.jpg", smooth_photo(rng, 60, 60)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        command.align_photos(stops(), finder_of(), tmp_path / "out", batch_size=1)
    assert not list(tmp_path.iterdir())


def test_a_video_is_its_frames(tmp_path, monkeypatch):
    frames = [np.full((4, 6, 3), [1, 2, 3 + i], np.uint8) for i in range(2)]

    class Video:
        def __init__(self, path):
            self.left = [] if "empty" in path else list(frames)

        def read(self):
            return (True, self.left.pop(0)) if self.left else (False, None)

        def release(self):
            pass

    (tmp_path / "clip.mp4").write_bytes(b"")
    (tmp_path / "empty.mov").write_bytes(b"")
    fake = types.SimpleNamespace(VideoCapture=Video)
    monkeypatch.setitem(__import__("sys").modules, "cv2", fake)
    first, second, empty = command.read_photos(tmp_path)
    assert first[0] == "clip.mp4/000000"
    np.testing.assert_array_equal(second[1][0, 0], [4, 2, 1])  # RGB
    assert empty == ("empty.mov", "no frame can be decoded")
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(ValueError, match=r"videos need OpenCV.*clip\.mp4"):
        list(command.read_photos(tmp_path))


def test_faults_are_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="must be a folder or a video"):
        list(command.read_photos(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="at least 32 pixels; got 8"):
        detector_finder(None, None, max_faces=1, min_score=0.5, max_side=8)
