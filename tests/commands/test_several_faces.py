"""Photos of several faces, their alignment, and a row for each face."""

import numpy as np
import pytest
from PIL import Image

from kprpe_jax.commands.main import main
from kprpe_jax.data.importers.decode import decode_rgb
from kprpe_jax.data.importers.landmarks import Landmarks
from kprpe_jax.data.importers.record import Record, RecordSource, RejectedRecord
from kprpe_jax.data.importers.several_faces import with_faces
from kprpe_jax.data.keys import match_keys
from kprpe_jax.data.rows import read_rows
from kprpe_jax.data.store import open_split
from kprpe_jax.geometry.point_fits import similarity_matrix
from kprpe_jax.geometry.template import face_template
from tests.detection.stand_in import bright_photo, stand_in


@pytest.fixture
def photos(tmp_path, monkeypatch, rng):
    """Two photos of two faces, one without, in folders of people."""
    monkeypatch.setattr(
        "kprpe_jax.recognizers.load_detector", lambda spec, **options: stand_in()
    )
    for name, (height, width) in (("ann/a.jpg", (60, 50)), ("bob/a.png", (70, 90))):
        (tmp_path / "photos" / name).parent.mkdir(parents=True)
        photo = Image.fromarray(bright_photo(rng, height, width))
        photo.save(tmp_path / "photos" / name)
    Image.new("RGB", (40, 40)).save(tmp_path / "photos" / "bob" / "black.png")
    return tmp_path


def imported(folder, source, name, table):
    main(["import", "folder", f"--source={source}", f"--name={name}",
          f"--data-dir={folder / 'data'}", "--on-error=skip",
          f"--landmarks={table}"])  # fmt: skip
    rows = open_split(folder / "data", name, "train")
    return {row["key"].item().decode(): row for row in read_rows(rows, 0)}


@pytest.mark.slow
def test_every_face_is_a_row_with_its_aligned_crop(photos, capsys):
    output, source = photos / "out", photos / "photos"
    main(["align", "--detector=any", f"--photos={source}", f"--output={output}",
          "--faces=all", "--size=32x32"])  # fmt: skip
    faces = imported(photos, source, "whole", output / "landmarks.csv")
    crops = imported(
        photos, output / "aligned", "crops", output / "aligned_landmarks.csv"
    )
    assert list(faces) == [
        "ann/a.jpg_0", "ann/a.jpg_1", "bob/a.png_0", "bob/a.png_1", "bob/black.png",
    ]  # fmt: skip
    assert not faces.pop("bob/black.png")["has_keypoints"]
    place = match_keys(list(crops), list(faces))
    assert place == [0, 1, 2, 3]
    for (key, face), crop in zip(faces.items(), crops.values(), strict=True):
        photo = (source / key[:-2]).read_bytes()
        assert face["image"].item() == photo  # the photo itself, once for each face
        assert face["identity"] == crop["identity"]
        height, width = decode_rgb(photo).shape[:2]
        # The similarity that aligned the crop takes the points of one to the other's.
        points = face["keypoints"] * [width, height]
        matrix = similarity_matrix(points, face_template((32, 32)))
        moved = points @ matrix[:, :2].T + matrix[:, 2]
        np.testing.assert_allclose(crop["keypoints"] * 32, moved, atol=0.01)
    assert not np.allclose(
        faces["ann/a.jpg_0"]["keypoints"], faces["ann/a.jpg_1"]["keypoints"], atol=0.05
    )
    capsys.readouterr()
    again = imported(photos, source, "whole", output / "landmarks.csv")
    assert list(again) == [*faces, "bob/black.png"]
    assert "5 given: 5 used, 0 left out" in capsys.readouterr().out


def test_a_stopped_import_goes_on_at_a_face():
    points = np.tile(face_template((1, 1)), (3, 1, 1)).astype(np.float32)
    rows = {"b.jpg_0": 0, "b.jpg_1": 1, "b.jpg_2": 2}
    landmarks = Landmarks(rows, points, "fraction")
    entries = [
        Record("a.jpg", b"a", 0),
        Record("b.jpg", b"b", 1),
        RejectedRecord("c.jpg", "broken image", "it is cut"),
        Record("d.jpg", b"d", 1),
    ]
    source = RecordSource(lambda start: iter(entries[start:]), state="")
    keys = ["a.jpg", *rows, "c.jpg", "d.jpg"]
    for start in range(7):
        found = with_faces(source, landmarks).read(start)
        assert [entry.key for entry in found] == keys[start:]
