"""Faces of a label file in the form of WIDER FACE with landmarks."""

import numpy as np
import pytest
from PIL import Image

from kprpe_jax.data.importers.decode import decode_rgb
from kprpe_jax.data.importers.record import RejectedRecord
from kprpe_jax.data.importers.wider_face import FRAME, open_wider_face

# Offsets of the five points from the box's corner, in its sides.
POINTS = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])


def line(left, top, width, height, points=None):
    if points is None:
        points = np.array([left, top]) + POINTS * [width, height]
    rows = " ".join(f"{x:.3f} {y:.3f} 0.0" for x, y in points)
    return f"{left} {top} {width} {height} {rows} 0.9\n"


@pytest.fixture
def folder(tmp_path):
    """A photo with a red 3 x 3 dot on each point of a 40 x 60 face near its border."""
    photo = np.full((150, 200, 3), 90, np.uint8)
    for x, y in np.array([150, 10]) + POINTS * [40, 60]:
        photo[round(y) - 1 : round(y) + 2, round(x) - 1 : round(x) + 2] = (255, 0, 0)
    (tmp_path / "images" / "0--Parade").mkdir(parents=True)
    Image.fromarray(photo).save(tmp_path / "images" / "0--Parade" / "a.png")
    none = -np.ones((5, 2))
    (tmp_path / "label.txt").write_text(
        "# 0--Parade/a.png\n"
        + line(150, 10, 40, 60)
        + line(5, 5, 30, 30, none)  # not labeled
        + line(5, 5, 12, 30)  # too small
        + "# 0--Parade/lost.jpg\n"
        + line(10, 10, 50, 50)
        + "# ../../outside.png\n"
        + line(10, 10, 50, 50)
        + "# 0--Parade/a.png\n5 5 30\n"
    )
    return tmp_path


def test_a_row_for_each_face_with_landmarks(folder):
    source = open_wider_face(folder)
    face, lost, outside, short = source.read(0)
    assert source.count == 4
    assert list(source.read(2)) == [outside, short]

    assert face.key == "0--Parade/a.png#2"
    image = decode_rgb(face.image).astype(int)
    assert image.shape == (FRAME, FRAME, 3)
    red = image[..., 0] - image[..., 1] > 60
    for x, y in face.keypoints * FRAME:
        assert red[round(y), round(x)]
    # The box, twice as long as it is wide, lies in the middle half.
    want = POINTS * [40, 60] / 120 + [0.5 - 20 / 120, 0.25]
    np.testing.assert_allclose(face.keypoints, want, atol=1e-5)
    assert image[:10, 200:].max() < 20  # black outside of the photo

    assert [x.kind for x in (lost, outside, short)] == [
        "missing image", "wrong path", "wrong line",
    ]  # fmt: skip
    assert all(isinstance(x, RejectedRecord) for x in (lost, outside, short))
    assert short.key == "line 10"


def test_files_that_are_none(folder):
    with pytest.raises(ValueError, match="label file; got no such file"):
        open_wider_face(folder / "other.txt")
    (folder / "label.txt").write_text("# a.png\n" + line(0, 0, 9, 9))
    with pytest.raises(ValueError, match="faces with landmarks; got none"):
        open_wider_face(folder)
