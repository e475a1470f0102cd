"""Tables in each form, units taken for one another, malformed lines."""

import numpy as np
import pytest

from kprpe_jax.data.importers.landmarks import read_landmarks
from tests.data.importers.sources import SHARED, needs_shared


@pytest.fixture
def points(rng):
    return rng.uniform(0.1, 0.9, (4, 5, 2)).astype(np.float32)


def table(points, separator=",", scores="", header="") -> str:
    lines = [header] if header else []
    for i, face in enumerate(points):
        fields = [f"{i}.jpg"]
        for x, y in face:
            fields += [f"{x:.7g}", f"{y:.7g}"] + (["0.9"] if scores == "point" else [])
        lines.append(separator.join(fields + (["0.99"] if scores == "face" else [])))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("separator", [",", ";", "\t", " "])
@pytest.mark.parametrize("scores", ["", "face", "point"])
@pytest.mark.parametrize("header", ["", "name,x,y"])
def test_text_tables(tmp_path, points, separator, scores, header):
    (tmp_path / "t").write_text(table(points, separator, scores, header))
    landmarks = read_landmarks(tmp_path / "t", units="fraction")
    assert len(landmarks.rows) == 4
    for i in range(4):
        got = landmarks.find(f"{i}.jpg", 10, 20)
        np.testing.assert_allclose(got, points[i], atol=1e-6)
        assert got.dtype == np.float32
    assert landmarks.find("4.jpg", 10, 20) is None


@pytest.mark.parametrize("count", [3, 17, 29, 68])
def test_tables_of_any_number_of_points(tmp_path, rng, count):
    points = rng.uniform(0.1, 0.9, (4, count, 2)).astype(np.float32)
    np.savez(tmp_path / "t.npz", names=[f"{i}.jpg" for i in range(4)], points=points)
    names = ",".join(f"x{i},y{i}" for i in range(count))
    header = f"name,{names},score,yaw,pitch,roll"
    rows = table(points).splitlines()
    text = "\n".join([header, *(f"{row},0.9,-12.5,3,1e2" for row in rows)])
    (tmp_path / "t.csv").write_text(text + "\n")
    for name in ("t.npz", "t.csv"):
        landmarks = read_landmarks(tmp_path / name, units="fraction")
        assert landmarks.is_dense
        np.testing.assert_allclose(landmarks.find("2.jpg", 9, 9), points[2], atol=1e-6)
        assert landmarks.knows("2.jpg") == (count == 68)


def test_single_points_of_many_may_be_missing(tmp_path, rng):
    points = rng.uniform(0.1, 0.9, (4, 17, 2)).astype(np.float32)
    points[0, 3] = points[1] = -1
    points[2, 5, 1] = np.nan
    np.savez(tmp_path / "t.npz", names=[f"{i}.jpg" for i in range(4)], points=points)
    landmarks = read_landmarks(tmp_path / "t.npz", units="fraction")
    missing = np.isnan([landmarks.find(f"{i}.jpg", 9, 9) for i in range(4)])
    assert (missing[..., 0] == missing[..., 1]).all()
    assert missing[..., 0].sum(1).tolist() == [1, 17, 1, 0]
    np.savez(tmp_path / "t.npz", names=["a"], points=points[1:2])
    with pytest.raises(ValueError, match="must have a row whose points are known"):
        read_landmarks(tmp_path / "t.npz", units="fraction")


def test_names_that_are_quoted_and_bytes_that_are_no_text(tmp_path, points):
    names = ['"Doe, Jane/1.jpg"', '"a ""b"".jpg"', '"two\nlines.jpg"', "\udcff.jpg"]
    lines = table(points).splitlines()
    text = "\n".join(
        line.replace(f"{number}.jpg", name)
        for number, (line, name) in enumerate(zip(lines, names, strict=True))
    )
    (tmp_path / "t").write_bytes(
        b"\xef\xbb\xbf" + text.encode(errors="surrogateescape")
    )
    landmarks = read_landmarks(tmp_path / "t", units="fraction")
    assert list(landmarks.rows) == [
        "Doe, Jane/1.jpg", 'a "b".jpg', "two\nlines.jpg", "\udcff.jpg",
    ]  # fmt: skip


def test_pixels_become_fractions_by_pixel_centers(tmp_path, points):
    height, width = 30, 60
    # A point at the center of pixel i is at (i + 0.5) / size.
    pixels = points * [width, height] - 0.5
    (tmp_path / "t").write_text(table(pixels))
    landmarks = read_landmarks(tmp_path / "t", units="pixel")
    np.testing.assert_allclose(
        landmarks.find("2.jpg", height, width), points[2], atol=1e-6
    )


@needs_shared
def test_the_real_archive_of_lfw():
    landmarks = read_landmarks(
        SHARED / "lfw" / "lfw_df_landmarks.npz", units="pixel", array="points112"
    )
    assert len(landmarks.rows) == 11817
    got = landmarks.find("Aaron_Eckhart/Aaron_Eckhart_0001.jpg", 112, 112)
    template = np.array(
        [[38.3, 51.7], [73.5, 51.5], [56, 71.7], [41.5, 92.4], [70.7, 92.2]]
    )
    assert np.abs(got - (template + 0.5) / 112).max() < 0.08


def test_units_taken_for_one_another(tmp_path, points):
    (tmp_path / "t").write_text(table(points * 112))
    with pytest.raises(ValueError, match="must be fractions.*--landmark-units pixel$"):
        read_landmarks(tmp_path / "t", units="fraction")
    (tmp_path / "t").write_text(table(points))
    with pytest.raises(ValueError, match="must be pixels.*--landmark-units fraction$"):
        read_landmarks(tmp_path / "t", units="pixel")
    points[0] = 40  # one failed detection does not decide
    points[1] = np.nan
    (tmp_path / "t").write_text(table(points))
    read_landmarks(tmp_path / "t", units="fraction")


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda t: t.replace("\n2.jpg", "\n1.jpg"), r"unique; got '1\.jpg' more than"),
        (lambda t: t.replace("\n2.jpg,0", "\n2.jpg,x0"), r"line 3 of .*could not conv"),
        (lambda t: t.replace("\n2.jpg,", "\n2.jpg,0.5,"), "line 3 of .*got 11 numbers"),
        (lambda t: "a.jpg,1,2,3\n" + t, "line 1 of .*10, 11 or 15.*got 3 numbers"),
        (lambda t: "n,x0,y0,x1,y1,x2,y2\n" + t, "line 2 of .*got 10 under 6 column n"),
        (lambda t: "n,x0,y0,x1,y1\n" + t, "header of .* must name x and y of five"),
        (lambda t: "", "must have a row per image; got none"),
        (lambda t: "name,x,y\n", "must have a row per image; got none"),
    ],
)
def test_malformed_tables(tmp_path, points, damage, match):
    (tmp_path / "t").write_text(damage(table(points)))
    with pytest.raises(ValueError, match=match) as e:
        read_landmarks(tmp_path / "t", units="fraction")
    assert "\n" not in str(e.value)


def test_archives_that_do_not_fit(tmp_path, points):
    path = tmp_path / "t.npz"
    np.savez(path, names=np.array(["a", "b", "c", "é"]), points=points, wide=points[:3])
    landmarks = read_landmarks(path, units="fraction")
    np.testing.assert_array_equal(landmarks.find("é", 1, 1), points[3])
    with pytest.raises(ValueError, match=r"\[4, 5, 2\]; got \[3, 5, 2\]; name another"):
        read_landmarks(path, units="fraction", array="wide")
    np.savez(path, names=np.array(["a"]), points=points[:1, :2])
    with pytest.raises(ValueError, match=r"another number from three, as \[1, 5"):
        read_landmarks(path, units="fraction")
    np.savez(path, names=np.array(["a"]), points=points[0])
    with pytest.raises(ValueError, match=r"as \[1, 5, 2\]; got \[5, 2\]; name an"):
        read_landmarks(path, units="fraction")
    with pytest.raises(ValueError, match="arrays 'names' and 'p'.*--landmark-array"):
        read_landmarks(path, units="fraction", array="p")
    path.write_bytes(b"PK rubbish")
    with pytest.raises(ValueError, match=r"t\.npz must hold the arrays"):
        read_landmarks(path, units="fraction")
    np.savez(path, names=np.array(["a", None], object), points=points)
    with pytest.raises(ValueError, match="it holds Python objects"):
        read_landmarks(path, units="fraction")


def test_absent_and_unknown_units(tmp_path):
    with pytest.raises(ValueError, match="got no such file"):
        read_landmarks(tmp_path / "t", units="pixel")
    with pytest.raises(ValueError, match=r"\('fraction', 'pixel'\); got 'pixels'"):
        read_landmarks(tmp_path / "t", units="pixels")


def test_names_with_other_endings_and_folders(tmp_path, points):
    text = table(points).replace("0.jpg", "lfw/a/0.jpg").replace("1.jpg", "lfw/b/1.jpg")
    text = text.replace("2.jpg", "lfw/b/2.jpg").replace("3.jpg", "lfw/b/3.jpg")
    (tmp_path / "t").write_text(text)
    landmarks = read_landmarks(tmp_path / "t", units="fraction")
    for name in ("lfw/b/2.jpg", "./lfw/b/2.jpg.png", "b/2.png", "faces/b/2.jpg"):
        assert landmarks.row(name) == 2
    assert landmarks.row("2.jpg") is None
    with pytest.raises(ValueError, match=r"those of faces and other fit one row"):
        landmarks.row("other/b/2.jpg")


CELEBA = """4
lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y \
rightmouth_x rightmouth_y
000001.jpg 165  184  244  176  196  249  194  271  266  260
000002.jpg 140  204  220  204  168  254  146  289  226  289
000003.jpg 244  104  264  105  263  121  235  134  251  140
000004.jpg 796  539  984  539  930  687  762  756  915  756
"""


def test_the_lists_of_celeba(tmp_path):
    """The first lines of its list: a count, names of the columns, rows."""
    (tmp_path / "list.txt").write_text(CELEBA)
    landmarks = read_landmarks(tmp_path / "list.txt", units="pixel")
    assert list(landmarks.rows) == [f"{n:06d}.jpg" for n in range(1, 5)]
    assert landmarks.points[0, 0].tolist() == [165, 184]
    assert (landmarks.points[:, 0, 0] < landmarks.points[:, 1, 0]).all()  # image left
    head, names, *rows = CELEBA.splitlines()
    # Its header is obeyed in another order, too.
    places = [2, 3, 0, 1, 4, 5, 8, 9, 6, 7]
    swapped = [" ".join(names.split()[i] for i in places)]
    for row in rows:
        name, *numbers = row.split()
        swapped.append(" ".join([name, *(numbers[i] for i in places)]))
    (tmp_path / "swapped.txt").write_text("\n".join([head, *swapped]) + "\n")
    other = read_landmarks(tmp_path / "swapped.txt", units="pixel")
    np.testing.assert_array_equal(other.points, landmarks.points)
    (tmp_path / "cut.txt").write_text("\n".join([head, names, *rows[:3]]))
    with pytest.raises(ValueError, match="must have the 4 rows that its first line"):
        read_landmarks(tmp_path / "cut.txt", units="pixel")


def test_names_of_several_faces(tmp_path, points):
    names = ["a/x.jpg_0", "a/x.jpg_1", "a/y.jpg_0", "b/z.jpg"]
    text = table(points).replace(".jpg", "@")
    for number, name in enumerate(names):
        text = text.replace(f"{number}@", name)
    (tmp_path / "t").write_text(text)
    landmarks = read_landmarks(tmp_path / "t", units="fraction")
    assert landmarks.faces("a/x.jpg") == names[:2]
    assert landmarks.faces("photos/a/y.jpg") == ["photos/a/y.jpg_0"]  # a top folder
    assert landmarks.row("photos/a/y.jpg_0") == 2
    assert landmarks.faces("b/z.jpg") == landmarks.faces("c.jpg") == []
