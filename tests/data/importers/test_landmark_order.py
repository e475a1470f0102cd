"""Placeholders, and tables of faces in every order that people write."""

import numpy as np
import pytest

from kprpe_jax.data.importers.check import check
from kprpe_jax.data.importers.landmarks import read_landmarks
from kprpe_jax.data.importers.record import Record
from kprpe_jax.geometry.template import FACE_POINTS
from tests.data.importers.sources import face

SUBJECT = [1, 0, 2, 4, 3]  # the subject's left is right in the image
NAMES = ["lefteye", "righteye", "nose", "leftmouth", "rightmouth"]


@pytest.fixture
def faces(rng):
    """Upright faces, float32 [20, 5, 2] in fractions."""
    noise = rng.normal(0, 0.02, (20, 5, 2))
    return np.float32(np.asarray(FACE_POINTS) + noise)


def write(path, rows, header=""):
    lines = [header] if header else []
    for number, row in enumerate(rows):
        fields = [x if isinstance(x, str) else f"{x:.7g}" for x in row]
        lines.append(",".join([f"{number}.jpg", *fields]))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("placeholder", ["-1", "0", "nan", ""])
@pytest.mark.parametrize("points", [5, 1])
def test_placeholders_are_unknown(tmp_path, faces, placeholder, points):
    rows = faces.reshape(-1, 10).tolist()
    rows[3][: 2 * points] = [placeholder] * (2 * points)
    landmarks = read_landmarks(write(tmp_path / "t", rows), units="fraction")
    assert np.isnan(landmarks.find("3.jpg", 10, 10)).all()
    np.testing.assert_allclose(landmarks.find("4.jpg", 10, 10), faces[4], atol=1e-6)


def test_a_detector_fills_placeholders(tmp_path, faces):
    """A placeholder is no landmark: a detector is asked, and its points are taken."""
    rows = faces.reshape(-1, 10).tolist()
    rows[3] = [-1] * 10
    table = read_landmarks(write(tmp_path / "t", rows), units="fraction")
    assert [table.knows(f"{i}.jpg") for i in (2, 3, 20)] == [True, False, False]
    found = np.full((5, 2), 0.25, np.float32)
    for key, origin in (("2.jpg", "table"), ("3.jpg", "detector")):
        record = Record(key, face(0), "ann", keypoints=found, keypoints_from="detector")
        checked = check(record, table)
        assert (checked.keypoints_from, checked.bad) == (origin, None)
    np.testing.assert_array_equal(checked.keypoints, found)
    checked = check(Record("3.jpg", face(0), "ann"), table)
    assert (checked.bad.kind, checked.keypoints) == ("missing landmarks", None)
    assert "placeholders" in checked.bad.reason


def test_placeholders_alone_are_no_table(tmp_path):
    with pytest.raises(ValueError, match="a row whose points are known; got NaN, 0 or"):
        read_landmarks(write(tmp_path / "t", [[-1] * 10] * 3), units="pixel")


ORDERS = {
    "x1..x5,y1..y5": lambda p: p.swapaxes(1, 2),
    "y1..y5,x1..x5": lambda p: p[..., ::-1].swapaxes(1, 2),
    "y before x": lambda p: p[..., ::-1],
    "x, y of each point, the subject's left first": lambda p: p[:, SUBJECT],
    "x, y of each point, the nose first": lambda p: p[:, [2, 0, 1, 3, 4]],
    "x, y of each point, the nose last": lambda p: p[:, [0, 1, 3, 4, 2]],
    "x1..x5,y1..y5, the subject's left first": (lambda p: p[:, SUBJECT].swapaxes(1, 2)),
}


@pytest.mark.parametrize("order", ORDERS)
def test_another_order_is_named(tmp_path, faces, order):
    path = write(tmp_path / "t", ORDERS[order](faces).reshape(-1, 10))
    with pytest.raises(ValueError, match=f"stand otherwise: {order}; reorder") as e:
        read_landmarks(path, units="fraction")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "names",
    [
        [f"{axis}{n}" for axis in "xy" for n in range(1, 6)],
        [f"{axis}_{n}" for axis in "yx" for n in range(5)],
        [f"p{n}{axis}" for n in range(1, 6) for axis in "yx"],
        [f"{name}_{axis}" for axis in "xy" for name in NAMES],
        [f"{axis}-{name}" for name in reversed(NAMES) for axis in "xy"],
    ],
)
@pytest.mark.parametrize("score", ["", "score"])
def test_a_header_is_obeyed(tmp_path, faces, names, score):
    """Columns in any order; here those of a table in our order, moved."""
    ours = [f"{name}_{axis}" for name in NAMES for axis in "xy"]
    numbered = any(character.isdigit() for character in "".join(names))
    low = min((int(n) for n in names[0] if n.isdigit()), default=0)
    low = 0 if "0" in "".join(names) else low and 1
    known = [f"{n + low}{axis}" for n in range(5) for axis in "xy"] if numbered else []

    def column(name):
        if not numbered:
            bare = name.replace("x-", "").replace("y-", "")
            axis = name[0] if "-" in name else name[-1]
            return ours.index(f"{bare.removesuffix('_' + axis)}_{axis}")
        axis = "x" if "x" in name else "y"
        return known.index(next(n for n in name if n.isdigit()) + axis)

    rows = faces.reshape(-1, 10)[:, [column(name) for name in names]].tolist()
    rows = [[*row, *([0.9] if score else [])] for row in rows]
    header = ",".join(["image", *names, *filter(None, [score])])
    landmarks = read_landmarks(write(tmp_path / "t", rows, header), units="fraction")
    for number in range(len(faces)):
        got = landmarks.find(f"{number}.jpg", 10, 10)
        np.testing.assert_allclose(got, faces[number], atol=1e-6)


def test_a_header_that_contradicts(tmp_path, faces):
    rows = faces.reshape(-1, 10)
    twice = ",".join(
        ["name", *(f"{axis}{n}" for n in (1, 2, 3, 4, 4) for axis in "xy")]
    )
    with pytest.raises(
        ValueError, match="the header of .* x and y of five points once"
    ):
        read_landmarks(write(tmp_path / "t", rows, twice), units="fraction")
    header = ",".join(["name", *(f"{name}_{axis}" for name in NAMES for axis in "xy")])
    subject = faces[:, SUBJECT].reshape(-1, 10)
    with pytest.raises(ValueError, match="the subject's left first"):
        read_landmarks(write(tmp_path / "t", subject, header), units="fraction")
    with pytest.raises(ValueError, match="line 2 of .*got 11 under 10 column names"):
        read_landmarks(
            write(tmp_path / "t", [[*row, 0.5] for row in rows], header),
            units="fraction",
        )


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_faces_on_their_side_are_no_other_order(tmp_path, faces, turn):
    """All photos of a camera that was held otherwise."""
    x, y = faces[..., 0], faces[..., 1]
    turned = {90: (1 - y, x), 180: (1 - x, 1 - y), 270: (y, 1 - x)}[turn]
    rows = np.stack(turned, -1).reshape(-1, 10)
    landmarks = read_landmarks(write(tmp_path / "t", rows), units="fraction")
    assert len(landmarks.rows) == 20
