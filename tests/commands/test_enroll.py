"""The enroll command, with a network of two layers."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from kprpe_jax.commands.main import main
from kprpe_jax.data import read_photos
from kprpe_jax.data.importers.decode import decode_rgb
from kprpe_jax.gallery import enroll as library
from kprpe_jax.gallery.gallery import Gallery
from kprpe_jax.gallery.header import describe_gallery
from tests.commands.run_verb import enroll, fails, on_gallery
from tests.detection.color_faces import color_detector, face_photo
from tests.gallery.tiny import PEOPLE, photo, png, tiny_recognizer

pytestmark = pytest.mark.usefixtures("networks")


def contents(folder):
    with Gallery(folder / "people.gallery") as gallery:
        return gallery.people()


def test_enrolling_again_adds_what_is_new(folder, capsys):
    enroll(folder)
    told = "6 given: 6 added, 0 enrolled before, 0 left out; "
    assert told in capsys.readouterr().out
    (folder / "photos" / "bob" / "9.png").write_bytes(photo(1, 9))
    enroll(folder)
    out = capsys.readouterr().out
    assert "7 given: 1 added, 6 enrolled before, 0 left out" in out
    assert "holds 7 photos of 3 people" in out
    assert contents(folder) == {"ann": 2, "bob": 3, "cleo": 2}


def test_a_flat_folder_names_people_by_file(folder):
    flat = folder / "flat"
    flat.mkdir()
    for name, given in (("Ann_Lee_0001", (0, 0)), ("Ann_Lee_0002", (0, 1)),
                        ("bob", (1, 0)), ("_7", (2, 0))):  # fmt: skip
        (flat / f"{name}.png").write_bytes(photo(*given))
    main(on_gallery("enroll", folder, f"--photos={flat}"))
    assert contents(folder) == {"Ann_Lee": 2, "bob": 1, "_7": 1}
    (folder / "people.gallery").unlink()
    main(on_gallery("enroll", folder, f"--photos={flat / 'Ann_Lee_0002.png'}"))
    assert contents(folder) == {"Ann_Lee": 1}


def test_names_of_any_letters_and_bytes(folder, capsys):
    """Decomposed letters and composed ones are one person; bytes are told as \\xff."""
    odd = folder / "odd"
    for number, name in enumerate(["Doe, Jane; 2", "Zoe\u0301", "Zo\u00e9", "\udcff"]):
        (odd / name).mkdir(parents=True)
        (odd / name / f"{number}.jfif").write_bytes(photo(number, 0))
    (odd / "list.csv").write_text("no photo")
    main(on_gallery("enroll", folder, f"--photos={odd}"))
    told = "left out: list.csv: by name and content no photo and no video"
    assert told in capsys.readouterr().err
    assert contents(folder) == {"Doe, Jane; 2": 1, "Zo\u00e9": 2, "\\xff": 1}
    output = folder / "answers.json"
    main(on_gallery("identify", folder, f"--photos={odd}", f"--output={output}"))
    photos = [record["photo"] for record in json.loads(output.read_text())]
    assert photos[-1] == "\\xff/3.jfif"
    gallery = f"--gallery={folder / 'people.gallery'}"
    main(["gallery", "remove", "Zoe\u0301", "Doe, Jane; 2", gallery])
    assert contents(folder) == {"\\xff": 1}


def test_a_video_is_one_person(folder, monkeypatch):
    """Its frames are one entry: their mean, and the patches of the most typical."""
    (folder / "photos" / "ann" / "walk.mp4").write_bytes(b"frames")
    (folder / "dan.mp4").write_bytes(b"others")
    frames = decoded((0, 3), (0, 4))

    def read(path):
        yield from ((f"/{i:06d}", x) for i, x in enumerate(frames))
        yield "/000002", "it cannot be decoded"

    monkeypatch.setattr(read_photos, "_read_video", read)
    enroll(folder, "--patches=float32")
    assert contents(folder) == {"ann": 3, "bob": 2, "cleo": 2}
    with Gallery(folder / "people.gallery") as gallery:
        found = gallery.read()
    row = found.photos.index("ann/walk.mp4")
    assert found.num_images[row] == 2
    assert np.linalg.norm(found.features.embeddings[row]) == pytest.approx(1, abs=0.01)
    main(on_gallery("enroll", folder, f"--photos={folder / 'dan.mp4'}"
                    , "--patches=float32"))  # fmt: skip
    assert contents(folder)["dan"] == 1


def decoded(*photos):
    return [decode_rgb(photo(*given)) for given in photos]


def test_interrupted_enrollment_goes_on(folder, monkeypatch):
    """Batches that were not finished are done again, the others are not."""
    monkeypatch.setattr(library, "BATCH", 2)
    recognizer = tiny_recognizer()

    def stop_late(files):
        for number, file in enumerate(files):
            if number == 5:
                raise KeyboardInterrupt
            yield file

    path = folder / "people.gallery"
    header = describe_gallery(recognizer, "int8")
    with Gallery(path, create=header) as gallery, pytest.raises(KeyboardInterrupt):
        library.enroll(
            gallery, folder / "photos", recognizer, batch_size=2, progress=stop_late
        )
    assert contents(folder) == {"ann": 2}
    enroll(folder, "--patches=int8")
    assert contents(folder) == {"ann": 2, "bob": 2, "cleo": 2}


def test_photos_without_a_face(folder, capsys):
    (folder / "photos" / "bob" / "0a.png").write_bytes(b"no picture")
    wide = png(np.zeros((30, 40, 3), np.uint8))
    (folder / "photos" / "cleo" / "0a.png").write_bytes(wide)
    error = fails(
        capsys, *on_gallery("enroll", folder, f"--photos={folder / 'photos'}")
    )
    assert "bob/0a.png: the image must be a whole JPEG" in error
    enroll(folder, "--on-error=skip")
    out, err = capsys.readouterr()
    assert "8 given: 6 added, 0 enrolled before, 2 left out " in out
    assert "left out: cleo/0a.png: it must be an aligned face of 16 x 8 pi" in err
    assert contents(folder) == dict.fromkeys(PEOPLE, 2)


def test_a_gallery_of_nobody_is_no_file(folder):
    photos = folder / "none" / "ann"
    photos.mkdir(parents=True)
    (photos / "0.png").write_bytes(b"no picture")
    enroll(folder, f"--photos={photos.parent}", "--on-error=skip")
    assert not (folder / "people.gallery").exists()


def test_photos_that_are_there_under_another_name(folder, capsys):
    enroll(folder)
    again = on_gallery("enroll", folder, f"--photos={folder / 'photos'}")
    (folder / "photos" / "dora").mkdir()
    (folder / "photos" / "dora" / "0.png").write_bytes(photo(0, 0))
    error = fails(capsys, *again)
    assert "dora/0.png: it is the same file as ann/0.png; enroll it once" in error
    (folder / "photos" / "dora" / "0.png").unlink()
    (folder / "photos" / "dora" / "1.png").write_bytes(photo(3, 0))
    (folder / "photos" / "ann" / "0.png").write_bytes(photo(0, 8))
    error = fails(capsys, *again)
    assert "ann/0.png: another photo of this name is enrolled" in error
    assert contents(folder) == dict.fromkeys(PEOPLE, 2)


def test_photos_that_come_twice_can_be_left_out(folder, capsys):
    """A copy in the same batch, a copy of what is there, a name that is taken."""
    enroll(folder)
    (folder / "photos" / "ann" / "0.png").write_bytes(photo(0, 8))
    (folder / "photos" / "dora").mkdir()
    for name, given in (("0", (3, 0)), ("1", (3, 0)), ("2", (1, 0)), ("3", (3, 1))):
        (folder / "photos" / "dora" / f"{name}.png").write_bytes(photo(*given))
    capsys.readouterr()
    enroll(folder, "--on-error=skip")
    out, err = capsys.readouterr()
    assert "10 given: 2 added, 5 enrolled before, 3 left out" in out
    assert err.splitlines() == [
        "left out: ann/0.png: another photo of this name is enrolled; rename it",
        "left out: dora/1.png: it is the same file as dora/0.png; enroll it once",
        "left out: dora/2.png: it is the same file as bob/0.png; enroll it once",
    ]
    assert contents(folder) == {**dict.fromkeys(PEOPLE, 2), "dora": 2}


def test_what_is_left_out_is_a_table(folder, capsys):
    """Files that reading would never end, or fill the memory, among them."""
    ann = folder / "photos" / "ann"
    (ann / "device.png").symlink_to("/dev/zero")
    (ann / "link, broken.jpg").symlink_to("nowhere")
    with (ann / "endless.jpg").open("wb") as file:
        file.truncate(1 << 40)
    table = folder / "left_out.csv"
    enroll(folder, "--on-error=skip", f"--left-out={table}")
    told = "9 given: 6 added, 0 enrolled before, 3 left out (no photo 1, unreadable 2)"
    assert told in capsys.readouterr().out
    with table.open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["name", "kind", "reason"],
            ["ann/device.png", "no photo", "it is a pipe, a socket or a device"],
            ["ann/endless.jpg", "unreadable", f"it has more than {1 << 29} bytes"],
            ["ann/link, broken.jpg", "unreadable",
             "it cannot be read (No such file or directory)"],
        ]  # fmt: skip
    given = on_gallery("enroll", folder, f"--photos={ann}", "--on-error=skip")
    error = fails(capsys, *given, "--left-out=/dev/full", status=1)
    assert error.splitlines()[-1] == (
        "error: No space left on device; free space and run the same command again"
    )
    given = f"--photos={ann}", "--left-out=no/x"
    error = fails(capsys, *on_gallery("enroll", folder, *given))
    assert "--left-out no/x: must name a file in a folder that is there" in error


def test_two_writers_of_the_same_photos(folder):
    """Whoever comes second finds them enrolled, whenever they came."""
    recognizer, path = tiny_recognizer(), folder / "people.gallery"
    header = describe_gallery(recognizer)

    def with_another(files):
        yield from files  # all are asked for; none of them is stored yet
        with Gallery(path, create=header) as other:
            assert library.enroll(other, folder / "photos", recognizer).added == 6

    with Gallery(path, create=header) as gallery:
        result = library.enroll(
            gallery, folder / "photos", recognizer, progress=with_another
        )
    assert (result.added, result.known, result.left_out) == (0, 6, [])
    assert contents(folder) == dict.fromkeys(PEOPLE, 2)


def test_bad_input(folder, capsys):
    photos = f"--photos={folder / 'photos'}"
    nowhere = on_gallery("enroll", folder, "--photos=nowhere")
    assert "must be a photo, a video or a folder" in fails(capsys, *nowhere)
    assert not (folder / "people.gallery").exists()
    enroll(folder)
    before = (folder / "people.gallery").read_bytes()
    error = fails(capsys, *on_gallery("enroll", folder, photos, model="other"))
    assert "was made by tiny" in error
    assert "cannot be compared" in error
    given = on_gallery("enroll", folder, photos, "--patches=int8")
    assert "keeps patches as bfloat16; got int8" in fails(capsys, *given)
    given = on_gallery("enroll", folder, photos, "--faces=all")
    assert "invalid choice: 'all'" in fails(capsys, *given)
    assert (folder / "people.gallery").read_bytes() == before


def test_features_that_are_not_finite(folder, capsys, monkeypatch):
    def broken(spec, **options):
        good = tiny_recognizer(spec)
        params = dict(good.variables["params"])
        params["patch"] = {**params["patch"], "bias": np.full(6, np.nan, np.float32)}
        return good.replace(variables={"params": params})

    monkeypatch.setattr("kprpe_jax.recognizers.load_recognizer", broken)
    error = fails(
        capsys, *on_gallery("enroll", folder, f"--photos={folder / 'photos'}")
    )
    assert "features of ann/0.png must be finite" in error
    assert not (folder / "people.gallery").exists()


def test_a_network_that_reads_keypoints_is_given_the_templates(folder):
    recognizer = tiny_recognizer(keypoints=True)
    path = folder / "people.gallery"
    with Gallery(path, create=describe_gallery(recognizer)) as gallery:
        library.enroll(gallery, folder / "photos", recognizer)
        keypoints = gallery.read().features.keypoints[np.arange(6)]
    assert (keypoints == keypoints[0]).all()
    assert ((keypoints > 0) & (keypoints < 1)).all()


def test_what_is_worth_telling_of_a_photo(folder, capsys, monkeypatch):
    monkeypatch.setattr(
        "kprpe_jax.recognizers.load_detector", lambda *_, **__: color_detector()
    )
    for file in folder.glob("photos/*/0.png"):
        file.unlink()
    Image.fromarray(face_photo(turns=1)).save(folder / "photos" / "ann" / "1.png")
    enroll(folder, "--detector=d", "--on-error=skip")
    err = capsys.readouterr().err
    assert "note: ann/1.png: turned by 270 degrees\n" in err
    assert "left out: bob/1.png: no face was detected" in err
    queries = folder / "photos" / "ann"
    output = folder / "answers.json"
    given = f"--photos={queries}", "--far=1", f"--output={output}"
    main(on_gallery("identify", folder, *given, "--detector=d"))
    assert "ann/1.png: ann (turned by 270 degrees)\n" in capsys.readouterr().out
    (record,) = json.loads(output.read_text())
    assert record["notes"] == ["turned by 270 degrees"]
