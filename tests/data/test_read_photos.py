"""Frames of a video, photos of a folder."""

import os
import types

import numpy as np
import pytest
from PIL import Image

from kprpe_jax.data.read_photos import (
    find_photos,
    read_files,
    read_photos,
)


def frames():
    """Six frames, each of one color."""
    colors = np.array([[40, 60, 200], [200, 60, 40], [60, 200, 40]] * 2, np.uint8)
    return np.broadcast_to(colors[:, None, None], (6, 48, 64, 3))


def write_video(path):
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48), True
    )
    assert writer.isOpened()
    for frame in frames():
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()


def test_a_video_is_its_frames_in_red_green_blue(tmp_path):
    path = tmp_path / "clip.avi"
    write_video(path)
    read = list(read_photos(path))
    assert [name for name, _ in read] == [f"clip.avi/{n:06d}" for n in range(6)]
    for (_, got), want in zip(read, frames(), strict=True):
        assert np.abs(got.astype(int) - want).max() < 8  # JPEG


def test_a_folder_with_photos_videos_and_damage(tmp_path):
    write_video(tmp_path / "b.avi")
    Image.fromarray(np.zeros((3, 5, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "c.jpg").write_bytes(b"no photo")
    (tmp_path / "d.mp4").write_bytes(b"no video")
    (tmp_path / "notes.txt").write_text("passed over")
    (tmp_path / ".hidden.png").write_bytes(b"passed over")
    read = dict(read_photos(tmp_path))
    assert len(read) == 1 + 6 + 1 + 1
    assert read["a.png"].shape == (3, 5, 3)
    assert read["b.avi/000005"].shape == (48, 64, 3)
    assert isinstance(read["c.jpg"], str)
    assert read["d.mp4"] == "no frame can be decoded"
    assert find_photos(tmp_path).count is None


def test_a_video_with_a_stand_in_for_its_decoder(tmp_path, monkeypatch):
    frames = [np.full((4, 6, 3), [1, 2, 3 + i], np.uint8) for i in range(2)]

    class Video:
        def __init__(self, path):
            self.left = [] if "empty" in path else list(frames)

        def get(self, what):
            return 0.0

        def read(self):
            return (True, self.left.pop(0)) if self.left else (False, None)

        def release(self):
            pass

    (tmp_path / "clip.mp4").write_bytes(b"")
    (tmp_path / "empty.mov").write_bytes(b"")
    fake = types.SimpleNamespace(VideoCapture=Video, CAP_PROP_FRAME_COUNT=7)
    monkeypatch.setitem(__import__("sys").modules, "cv2", fake)
    first, second, empty = read_photos(tmp_path)
    assert first[0] == "clip.mp4/000000"
    np.testing.assert_array_equal(second[1][0, 0], [4, 2, 1])  # RGB
    assert empty == ("empty.mov", "no frame can be decoded")
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(ValueError, match=r"clip\.mp4: videos need OpenCV"):
        list(read_photos(tmp_path))


def write_clip(path, frames=30):
    """A real MJPG file, and where the payload of each frame is: (start, length)."""
    cv2 = pytest.importorskip("cv2", reason="videos need OpenCV")
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for number in range(frames):
        writer.write(np.full((48, 64, 3), 5 * number, np.uint8))
    writer.release()
    content = path.read_bytes()
    place, places = content.index(b"movi"), []
    while len(places) < frames:
        place = content.index(b"00dc", place) + 8
        places.append((place, int.from_bytes(content[place - 4 : place], "little")))
    return content, places


def test_a_failed_read_is_not_the_end_of_a_video(tmp_path, rng):
    path = tmp_path / "clip.avi"
    content, places = write_clip(path)
    start, length = places[10]
    noise = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
    path.write_bytes(content[:start] + noise + content[start + length :])
    read = dict(read_photos(path))
    assert list(read) == [f"clip.avi/{number:06d}" for number in range(30)]
    lost = read.pop("clip.avi/000010")
    assert isinstance(lost, str), "noise was decoded"
    assert lost == "the frame cannot be decoded"
    assert [round(x.mean() / 5) for x in read.values()] == [
        *range(10), *range(11, 30),
    ]  # fmt: skip


def test_a_cut_video_says_what_it_promised(tmp_path):
    path = tmp_path / "clip.avi"
    content, places = write_clip(path)
    path.write_bytes(content[: places[12][0] + 20])
    *frames, (name, reason) = read_photos(path)
    assert all(isinstance(frame, np.ndarray) for _, frame in frames)
    assert name == f"clip.avi/{len(frames):06d}"
    assert 10 <= len(frames) <= 13
    assert reason == (
        f"from here on no frame can be decoded: {len(frames)} of the 30 that the file "
        "promises were read"
    )


def test_names_tell_the_folders_and_links_are_followed_once(tmp_path):
    image = Image.fromarray(np.zeros((3, 5, 3), np.uint8))
    for name in ("b/2.png", "b/1.png", "a/3.png", "c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        image.save(tmp_path / name)
    os.symlink(tmp_path, tmp_path / "a" / "loop")
    os.symlink(tmp_path / "b", tmp_path / "d")
    image.save(tmp_path / "e.bmp")
    image.save(tmp_path / "f.jfif", "JPEG")
    image.save(tmp_path / "g", "WEBP", lossless=True)
    (tmp_path / "h.gif").write_bytes(b"no photo")
    (tmp_path / "i.txt").write_text("BM is no bitmap")
    read = dict(read_photos(tmp_path))
    names = ["a/3.png", "b/1.png", "b/2.png", "c.png", "d/1.png", "d/2.png", "e.bmp"]
    names += ["f.jfif", "g", "h.gif"]  # by their ending or by their content
    assert list(read) == names
    assert "no decoder" in read.pop("h.gif")
    assert {image.shape for image in read.values()} == {(3, 5, 3)}
    found = find_photos(tmp_path)
    assert [row.key for row in found.others] == ["a/loop", "i.txt"]
    assert found.count == len(found.files) == len(names)
    assert find_photos(found) is found
    assert find_photos(tmp_path / "c.png").files == [tmp_path / "c.png"]
    assert [name for name, _ in read_photos(tmp_path / "b" / "1.png")] == ["1.png"]


def test_no_photos_are_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="must be a photo, a video or a folder"):
        list(read_photos(tmp_path / "nothing"))
    (tmp_path / "notes.txt").write_text("no photo")
    with pytest.raises(ValueError, match="must hold photos or videos .*; got none"):
        find_photos(tmp_path)


def test_what_was_asked_before_a_failure_is_given_first(tmp_path):
    for name in "abc":
        Image.new("RGB", (4, 3)).save(tmp_path / f"{name}.png")

    def files():
        yield "a", tmp_path / "a.png"
        yield "b", tmp_path / "b.png"
        raise KeyboardInterrupt

    found = read_files(files())
    for key in "ab":
        name, ((suffix, image),) = next(found)
        assert (name, suffix, image.shape) == (key, "", (3, 4, 3))
    with pytest.raises(KeyboardInterrupt):
        next(found)


def test_pipes_and_folders_that_cannot_be_read_are_told(tmp_path, monkeypatch):
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("closed", "empty"):
        (tmp_path / name).mkdir()
    listdir = os.listdir

    def refuse(path):
        if os.path.basename(path) == "closed":
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse)
    found = find_photos(tmp_path)
    assert [name for name, _ in read_photos(found)] == ["a.png"]
    assert [(row.key, row.kind, row.reason) for row in found.passed_over()] == [
        ("closed", "no photo", "the folder cannot be read (Permission denied)"),
        ("pipe.png", "no photo", "it is a pipe, a socket or a device"),
        ("empty", "empty folder", "it holds no photo"),
    ]
