"""`make people`: from photos to explained answers, by the commands."""

import pathlib
from collections import Counter

import pytest
from PIL import Image

from experiments.command import main
from experiments.synthetic import people
from experiments.synthetic.people import AskedFace
from kprpe_jax.weights.installed import INSTALLED, installed_file
from tests.lfw_frames import FRAMES, read_frames

needs_packages = pytest.mark.skipif(
    any(installed_file(name) is None for name in INSTALLED),
    reason="the packages with weights are not installed (make models)",
)


def write_photos(folder: pathlib.Path, names) -> pathlib.Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    return folder


def test_one_photo_of_each_person_is_held_out(tmp_path):
    flat = write_photos(tmp_path / "flat", ("A_1.jpg", "A_2.jpg", "A_3.jpg", "B_1.jpg"))
    assert people.choose_questions(flat) == {"A_3.jpg"}
    folders = write_photos(
        tmp_path / "folders", ("a/1.jpg", "a/x/2.jpg", "b/1.png", "b/2.png", "c/1.jpg")
    )
    held_out = people.choose_questions(folders)
    assert held_out == {"a/x/2.jpg", "b/2.png"}
    enrolled, asked = tmp_path / "enrolled", tmp_path / "asked"
    truth = people.link_photos(folders, held_out, enrolled, asked)
    assert truth == {
        "a/a_x_2.jpg": [AskedFace("a")],
        "b/b_2.png": [AskedFace("b")],
    }
    found = sorted(str(p.relative_to(enrolled)) for p in enrolled.rglob("*.*"))
    assert found == ["a/a_1.jpg", "b/b_1.png", "c/c_1.jpg"]
    assert (asked / "a" / "a_x_2.jpg").read_bytes() == (
        folders / "a" / "x" / "2.jpg"
    ).read_bytes()


def test_answers_are_counted():
    left, right = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0)
    truth = {
        "questions/0.jpg": [AskedFace("ann", left), AskedFace("", right)],
        "questions/1.jpg": [AskedFace("bob", left), AskedFace("cid", right)],
        "dan/1.jpg": [AskedFace("dan")],
        "eve/1.jpg": [AskedFace("eve")],
        "fay/1.jpg": [AskedFace("fay")],
    }
    records = [
        {"photo": "questions/0.jpg", "box": [18, 2, 29, 9], "person": None},
        {"photo": "questions/0.jpg", "box": [1, 2, 9, 12], "person": "ann"},
        {"photo": "questions/1.jpg", "box": [22, 2, 29, 9], "person": "bob"},
        {"photo": "dan/1.jpg", "box": [22, 2, 29, 9], "person": "dan"},
        {"photo": "eve/1.jpg", "box": [22, 2, 29, 9], "person": None},
        {"photo": "fay/1.jpg", "box": None, "person": None, "reason": "no face"},
    ]
    counts = people.count_answers(records, truth)
    assert counts == Counter(
        {"right": 2, "wrong": 1, "unknown": 1, "not found": 2, "stranger unknown": 1}
    )
    assert people.summarize(counts) == (
        "6 faces of enrolled people: 2 named rightly, 1 named wrongly, 1 unknown, "
        "2 not found; 1 stranger: 1 unknown, 0 named, 0 not found"
    )


def test_folders_that_are_not_its_own_stay(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.jpg").touch()
    with pytest.raises(ValueError, match="must be a new folder, or one that this com"):
        people.make_folder(tmp_path / "mine")
    made = people.make_folder(tmp_path / "new")
    (made / "people.gallery").touch()
    (made / "photos").mkdir()
    assert [p.name for p in people.make_folder(made).iterdir()] == [people.COMMANDS]
    (made / "photos").mkdir()
    with pytest.raises(ValueError, match="and not hold the photos; name another"):
        people.make_folder(made, made / "photos")


@needs_packages
def test_photos_that_cannot_be_asked(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    single = write_photos(tmp_path / "single", ("ann/1.jpg", "bob/1.jpg"))
    for photos, message in (
        (tmp_path / "none", "none must be a folder; got none"),
        (tmp_path / "empty", "must hold photos or videos"),
        (single, "two photos of somebody, one to enroll and one to ask; got one of ea"),
    ):
        output = tmp_path / "out"
        with pytest.raises(SystemExit) as stopped:
            main(["people", "--photos", str(photos), "--output", str(output)])
        assert stopped.value.code == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
        assert not output.exists()


@pytest.mark.slow
@needs_packages
def test_synthetic_people(tmp_path, capsys):
    output = tmp_path / "out"
    main(["people", "--output", str(output), "--num-identities=5"])
    printed = capsys.readouterr().out
    commands = (output / people.COMMANDS).read_text().splitlines()
    assert [line.split()[1] for line in commands] == [
        *("synthesize", "enroll", "identify", "explain"),
    ]
    for line in commands:
        assert f"\n$ {line}\n" in printed
    assert "5 faces of enrolled people: " in printed
    assert "3 strangers: " in printed
    assert (output / "people.html").stat().st_size > 10_000


@pytest.mark.slow
@needs_packages
@pytest.mark.skipif(not FRAMES.is_file(), reason=f"no photos at {FRAMES}")
def test_ones_own_photos(tmp_path, capsys, monkeypatch):
    people_asked = "Abel_Pacheco", "Ahmed_Chalabi"
    names = [f"{name}_{i:04d}.jpg" for name in people_asked for i in (1, 2)]
    (tmp_path / "photos").mkdir()
    for name, photo in zip(names, read_frames(names), strict=True):
        photo.save(tmp_path / "photos" / name)
    monkeypatch.chdir(tmp_path)
    main(["people", "--photos", "photos", "--output", "out"])
    printed = capsys.readouterr().out
    assert "2 faces of enrolled people: 2 named rightly, 0 named wrongly" in printed
    assert printed.endswith("page: out/people.html\n")
