"""Portraits and group photos of synthetic people, as files."""

import csv

import numpy as np
import pytest
from PIL import Image

from kprpe_jax.commands.main import main
from kprpe_jax.data.synthetic import photos

SIZE = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic") / "photos"
    main(
        [
            *("synthesize", "photos", "--output", str(folder), "--num-identities=4"),
            *("--num-test-identities=1", "--images-per-identity=2", "--seed=3"),
            *("--faces-per-photo=3", f"--size={SIZE}"),
        ]
    )
    return folder


@pytest.mark.slow
def test_everybody_is_in_the_files(folder):
    portraits = sorted(p.relative_to(folder) for p in folder.glob("people/*/*.jpg"))
    assert list(map(str, portraits)) == [
        f"people/person_{person:02d}/{number}.jpg"
        for person in range(4)
        for number in range(2)
    ]
    assert {Image.open(folder / path).size for path in portraits} == {(SIZE, SIZE)}
    with (folder / "truth.csv").open() as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == photos.HEADER
    assert sorted(row[1] for row in rows) == ["", *(f"person_0{i}" for i in range(4))]
    assert [row[0] for row in rows] == ["0.jpg"] * 3 + ["1.jpg"] * 2
    for name, _, *box in rows:
        width, height = Image.open(folder / "questions" / name).size
        left, top, right, bottom = map(float, box)
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height == SIZE


@pytest.mark.slow
def test_a_row_of_people_has_no_seams_and_each_is_where_the_box_says():
    options = dict(difficulty=0.0, size=SIZE)
    image, boxes = photos.render_group(3, [2, 0, 1], 0, **options)
    assert (np.diff(boxes[:, 0]) > boxes[:-1, 2] - boxes[:-1, 0]).all()
    top = image[2].astype(int)  # above the heads: the background alone
    assert np.abs(np.diff(top, axis=0)).max() <= 2
    alone = photos.render_portraits(3, np.array([0]), np.array([0]), **options)[0]
    shift = round(float(boxes[1, 0] - alone.box[0]))
    left, right = round(float(alone.box[0])), round(float(alone.box[2]))
    np.testing.assert_array_equal(
        image[20:40, left + shift : right + shift], alone.image[20:40, left:right]
    )


def test_what_cannot_be_written(tmp_path, capsys):
    (tmp_path / "there").mkdir()
    for arguments, message in (
        (
            ["--output", str(tmp_path / "there")],
            "must not exist yet; name another folder",
        ),
        ([], "--output: must name the folder of the photos; got none"),
        (["--output", str(tmp_path / "x"), "--size=8"], "--size at least 64; got"),
        (["--output", str(tmp_path / "x"), "--layout=free"], "is no option of photos"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["synthesize", "photos", *arguments])
        assert stopped.value.code == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    with pytest.raises(SystemExit):
        main(["synthesize", "faces", "--output=x"])
    assert "--output: is no option of faces" in capsys.readouterr().err
