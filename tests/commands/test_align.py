"""Folders of photos become folders of aligned faces, from the command line down."""

import csv
import functools

import numpy as np
import pytest
from PIL import Image

from kprpe_jax.commands import main as commands
from kprpe_jax.core.input_spec import InputSpec
from kprpe_jax.data.importers.landmarks import read_landmarks
from kprpe_jax.data.read_photos import read_photos
from kprpe_jax.detection.photo_faces import read_faces
from kprpe_jax.geometry.template import face_template
from kprpe_jax.report.aligned_folder import AlignedFolder, write_aligned_folder
from tests.detection.stand_in import SIZE, bright_photo, stand_in


def align(photos, output, *, faces="center", **options):
    """The command's parts with the stand-in."""
    found = read_faces(photos, InputSpec(SIZE), stand_in(), faces=faces, batch_size=1)
    return write_aligned_folder(found, output, number_faces=faces == "all", **options)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    source = tmp_path_factory.mktemp("photos")
    (source / "b").mkdir()
    rng = np.random.default_rng(1)
    for name, shape in (("a.png", (60, 50)), ("a.jpg", (200, 90)), ("b/c.jpg", (9, 9))):
        Image.fromarray(bright_photo(rng, *shape)).save(source / name)
    Image.new("RGB", (70, 70)).save(source / "black.png")
    (source / "broken.jpg").write_bytes(b"\xff\xd8no")
    (source / "notes.txt").write_text("no photo")
    (source / ".hidden.png").write_bytes(b"")
    return source


@pytest.fixture(scope="module")
def output(source):
    output = source.parent / "out"
    result = align(read_photos(source), output, faces="largest")
    assert result == AlignedFolder(3, 3, result.left_out)
    assert [row[:2] for row in result.left_out] == [
        ("black.png", "no usable face"), ("broken.jpg", "unreadable"),
    ]  # fmt: skip
    return output


def read_csv(path):
    with path.open() as file:
        return list(csv.reader(file))


def test_a_folder_becomes_faces_and_tables(output):
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


def test_all_faces_are_numbered(tmp_path, rng):
    photos = [("x.jpg", bright_photo(rng, 60, 60))]
    result = align(photos, tmp_path / "out", faces="all")
    assert result == AlignedFolder(1, 2, [])
    names = [row[0] for row in read_csv(tmp_path / "out" / "aligned_landmarks.csv")]
    assert names == ["name", "x.jpg_0.png", "x.jpg_1.png"]


def test_nothing_is_left_of_a_run_that_failed(source, output, tmp_path, rng):
    with pytest.raises(ValueError, match="must not exist yet"):
        align(read_photos(source), output)
    with pytest.raises(ValueError, match="must be photos to align; got none"):
        align([], tmp_path / "out")
    with pytest.raises(ValueError, match="black.png: no face .*--on-error skip"):
        align(read_photos(source / "black.png"), tmp_path / "out", on_error="fail")

    def stops():
        yield "x.jpg", bright_photo(rng, 60, 60)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        align(stops(), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def command(monkeypatch, capsys):
    """Run the command with the stand-in; give its exit status and what it said."""

    def load(spec, *, min_score, max_side, mesh_points):
        assert (spec, min_score, max_side) == ("NAME:FILE", 0.25, 512)
        assert not mesh_points  # five keypoints
        return stand_in()

    monkeypatch.setattr("kprpe_jax.recognizers.load_detector", load)

    def run(*arguments):
        status = 0
        try:
            commands.main(
                ["align", "--detector", "NAME:FILE", "--min-score", "0.25",
                 "--max-side", "512", "--size", "32x32", *map(str, arguments)]
            )  # fmt: skip
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


def test_the_closing_line_counts_everything(source, tmp_path, command):
    run = functools.partial(command, "--photos", source, "--output")
    status, out, err = run(tmp_path / "a", "--faces", "largest")
    assert status == 0
    assert [line.split(": ")[1] for line in err.splitlines()] == [
        "black.png", "broken.jpg", "notes.txt",
    ]  # fmt: skip
    assert out == (
        "6 given: 3 used, 3 left out (no photo 1, no usable face 1, unreadable 1); "
        f"3 faces aligned, in {tmp_path / 'a'}; left out: listed in "
        f"{tmp_path / 'a' / 'left_out.csv'}\n"
    )
    rows = read_csv(tmp_path / "a" / "left_out.csv")
    assert rows[1] == ["black.png", "no usable face", "no face was detected"]
    assert "whole JPEG" in rows[2][2]
    status, out, err = run(tmp_path / "b", "--on-error", "fail")
    assert (status, out) == (2, "")
    assert "error: black.png: no face was detected; " in err
    assert not (tmp_path / "b").exists()
    status, _, err = run(tmp_path / "c", "--size", "4x4")
    assert status == 2
    assert "at least 8 pixels" in err
