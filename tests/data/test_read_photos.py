"""Frames of a real video, photos of a folder."""

import numpy as np
import pytest
from PIL import Image

from kprpe_jax.data.read_photos import read_photos


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
