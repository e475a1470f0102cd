"""The identify command, with a network of two layers."""

import json

import numpy as np
import pytest
from PIL import Image

from kprpe_jax.commands.galleries import WEIGHTINGS
from kprpe_jax.commands.main import main
from kprpe_jax.gallery import identify as library
from kprpe_jax.gallery import thresholds
from kprpe_jax.gallery.gallery import Gallery
from kprpe_jax.matching import patch_weights
from tests.commands.run_verb import enroll, fails, on_gallery
from tests.detection.stand_in import POINTS, bright_photo, stand_in
from tests.gallery.tiny import PEOPLE, photo, tiny_recognizer

pytestmark = pytest.mark.usefixtures("networks")


def ask(folder, *arguments, photos="queries", **options):
    output = folder / "answers.json"
    given = f"--photos={folder / photos}", f"--output={output}"
    main(on_gallery("identify", folder, *given, *arguments, **options))
    return json.loads(output.read_text())


def test_a_bare_list_with_a_record_per_face(folder, capsys):
    enroll(folder)
    (folder / "queries" / "x.png").write_bytes(b"no photo")
    capsys.readouterr()
    *found, without = ask(folder, "--ranks=1")
    out = capsys.readouterr().out
    assert (
        "4 given: 3 used, 1 left out (unreadable 1); 3 faces: 3 identified, 0 unk"
        in out
    )
    for number, (record, name) in enumerate(zip(found, PEOPLE, strict=True)):
        assert record["photo"] == f"queries/{number}.png"
        assert record["person"] == record["ranking"][0]["person"] == name
        assert record["score"] == record["ranking"][0]["score"] > 0.9
        assert record["box"] is None  # the photo is an aligned face
        assert record["threshold"] is None
        assert "reason" not in record
        assert {row["person"] for row in record["ranking"]} == set(PEOPLE)
        scores = [row["score"] for row in record["ranking"]]
        assert scores == sorted(scores, reverse=True)
        assert f"queries/{number}.png: {name}" in out
    assert without["photo"] == "queries/x.png"
    assert without["reason"].startswith("the image must be a whole JPEG")
    assert without["box"] is without["person"] is without["score"] is None
    assert without["ranking"] == []
    assert f"queries/x.png: left out: {without['reason']}" in out


def test_unknown_people(folder, capsys, monkeypatch):
    enroll(folder)
    records = ask(folder, "--threshold=1")
    assert {record["person"] for record in records} == {None}
    assert all(record["score"] > 0.9 for record in records)
    out = capsys.readouterr().out
    assert "queries/0.png: unknown (cosine below 1)" in out
    assert "3 given: 3 used, 0 left out; 3 faces: 0 identified, 3 unknown" in out
    measured = thresholds.MeasuredThreshold(
        0.5, 0.001, 0.9, "photos", tiny_recognizer("w").fingerprint
    )
    monkeypatch.setitem(thresholds.THRESHOLDS, "tiny", measured)
    (record, *_) = ask(folder)
    assert (record["person"], record["threshold"]) == ("ann", 0.5)
    assert record["far"] == pytest.approx(1 - 0.999**6)
    (record, *_) = ask(folder, "--candidates=3", "--alpha=1")  # it is of the cosine
    assert (record["person"], record["threshold"]) == ("ann", 0.5)
    assert record["cosine"] > 0.9
    assert record["score"] != record["cosine"]
    (record, *_) = ask(folder, "--far=1")
    assert (record["person"], record["threshold"]) == ("ann", None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--threshold=2",), "--threshold must lie in [-1, 1]; got 2"),
        (("--far=0",), "--far must lie between 0 and 1; got 0"),
        (("--far=0.1", "--threshold=0"), "give either --far or --threshold"),
    ],
)
def test_a_threshold_out_of_its_range(folder, capsys, given, message):
    enroll(folder)
    photos = f"--photos={folder / 'queries'}"
    assert message in fails(capsys, *on_gallery("identify", folder, photos, *given))


@pytest.mark.parametrize("asked", [("--candidates=6",), ("--alpha=0.7",)])
def test_patches_of_candidates_are_compared_again(folder, asked):
    enroll(folder, "--patches=float32")
    records = ask(folder, *asked)
    recognizer = tiny_recognizer()
    with Gallery(folder / "people.gallery") as gallery:
        options = dict(candidates=6, alpha=0.7, far=0.02)
        answers = library.identify(
            gallery, folder / "queries", recognizer, **options
        ).answers
    for record, answer in zip(records, answers, strict=True):
        assert record == json.loads(json.dumps(answer.record()))
        for row in answer.ranking:
            mixed = 0.7 * row.patch_similarity + 0.3 * row.cosine
            assert row.score == pytest.approx(mixed, abs=1e-6)
            assert row.photo.startswith(f"{row.person}/")


def test_a_ranking_has_each_person_once(folder):
    """By the best photo, whatever else ranks between."""
    enroll(folder)
    recognizer = tiny_recognizer()
    with Gallery(folder / "people.gallery") as gallery:
        contents = gallery.read()
        answers = library.identify(gallery, folder / "photos", recognizer).answers
    units = contents.features.embeddings
    units = units / np.linalg.norm(units, axis=1, keepdims=True)
    cosine = units @ units.T
    for query, answer in enumerate(answers):
        assert answer.ranking[0].photo == contents.photos[query]
        for row in answer.ranking:
            own = [cosine[query, i] for i, who in enumerate(contents.people)
                   if who == row.person]  # fmt: skip
            assert row.cosine == row.score == pytest.approx(max(own), abs=1e-5)
            assert row.patch_similarity is None


def test_folders_and_their_faces_are_one_question(folder, capsys):
    enroll(folder)
    for person, name in ((1, "b"), (2, "c")):
        (folder / "queries" / name).mkdir()
        for number in (5, 6):
            file = folder / "queries" / name / f"{number}.png"
            file.write_bytes(photo(person, number))
    (folder / "queries" / "b" / "7.png").write_bytes(b"no photo")
    (folder / "queries" / "0.png").rename(folder / "queries" / "z.png")
    (folder / "queries" / "empty").mkdir()
    (folder / "queries" / "empty" / "x.png").write_bytes(b"no photo")
    records = ask(folder, "--probe=folder")
    name = folder.name
    found = {record["photo"]: record["person"] for record in records}
    assert set(found) == {
        f"{name}/queries", "queries/b", "queries/c", "queries/empty",
    }  # fmt: skip
    assert (found["queries/b"], found["queries/c"]) == ("bob", "cleo")
    assert found["queries/empty"] is None
    out, err = capsys.readouterr()
    assert (
        "9 given: 7 used, 2 left out (unreadable 2); 3 probes: 3 identified, 0 u" in out
    )
    assert "left out: b/7.png: the image must be" in err


def test_nothing_answered_is_a_run_that_failed(folder, capsys):
    enroll(folder)
    bad = folder / "bad.png"
    bad.write_bytes(b"no photo")
    given = on_gallery("identify", folder, f"--photos={bad}")
    assert "none of 1 given could be answered" in fails(capsys, *given, status=1)
    given += ["--on-error=fail"]
    assert "bad.png: the image must be a w" in fails(capsys, *given)
    assert len(ask(folder, "--on-error=fail")) == 3


def test_one_photo_of_one_person(folder, capsys):
    one = folder / "photos" / "ann" / "0.png"
    main(on_gallery("enroll", folder, f"--photos={one}"))
    (record,) = ask(folder, photos="photos/ann/0.png")
    assert record["photo"] == "ann/0.png"
    assert record["person"] == "0"
    assert record["score"] == pytest.approx(1, abs=1e-5)
    given = on_gallery("identify", folder, f"--photos={one}", "--candidates=2")
    error = fails(capsys, *given)
    assert "--candidates must lie in [0, 1], the photos of the gallery; got 2" in error


def test_bad_input(folder, capsys):
    query = f"--photos={folder / 'queries'}"
    asked = on_gallery("identify", folder, query)
    assert "there is none at" in fails(capsys, *asked)
    enroll(folder, "--patches=none")
    assert "of which" in fails(capsys, *asked, "--candidates=1")
    (folder / "people.gallery").unlink()
    enroll(folder)
    before = (folder / "people.gallery").read_bytes()
    for message, arguments in {
        "--candidates must lie in [0, 6]": (query, "--candidates=7"),
        "alpha must lie in [0, 1]; got 1.5": (query, "--alpha=1.5"),
        "must be a photo, a video or a folder of them": ("--photos=nowhere",),
        "argument --ranks: must be at least 1; got 0": (query, "--ranks=0"),
        "--output no/a.json: must name a file in a folder that": (
            query,
            "--output=no/a.json",
        ),
        "give one of them": (query, "--weighting=sc", "--matcher=run"),
        "--solver belongs to": (query, "--solver=domain=log", "--matcher=run"),
        "--solver must be like": (query, "--solver=log"),
    }.items():
        error = fails(capsys, *on_gallery("identify", folder, *arguments))
        assert message in error
    error = fails(capsys, *on_gallery("identify", folder, query, model="other"))
    assert "was made by tiny" in error
    (folder / "people.gallery").write_bytes(before[: len(before) // 2])
    assert "is damaged or no gallery" in fails(capsys, *asked)


def test_features_made_under_another_contract_are_refused(folder, capsys, monkeypatch):
    enroll(folder)

    def gray(spec, **options):
        good = tiny_recognizer(spec)
        return good.replace(input_spec=good.input_spec._replace(color="bgr"))

    monkeypatch.setattr("kprpe_jax.recognizers.load_recognizer", gray)
    given = on_gallery("identify", folder, f"--photos={folder / 'queries'}")
    error = fails(capsys, *given)
    assert "16 x 8, RGB, " in error
    assert "16 x 8, BGR, " in error
    assert error.count("\n") == 1


def test_the_weightings_are_those_of_the_library():
    assert set(WEIGHTINGS) <= set(patch_weights.WEIGHTINGS)


@pytest.fixture
def detector(monkeypatch):
    """`--detector` detects two faces in bright photos; give how to break the second."""
    options = {}
    monkeypatch.setattr(
        "kprpe_jax.recognizers.load_detector", lambda spec, **more: stand_in(**options)
    )
    return options


def test_every_face_of_a_photo_has_a_record_with_its_box(folder, detector, rng, capsys):
    photos = folder / "group"
    photos.mkdir()
    Image.fromarray(bright_photo(rng, 60, 90)).save(photos / "a.png")
    Image.fromarray(np.zeros((60, 90, 3), np.uint8)).save(photos / "b.png")
    (photos / "c.png").write_bytes(b"no photo")
    found = f"--photos={photos}", "--detector=d"
    main(on_gallery("enroll", folder, *found, "--on-error=skip"))
    assert "3 given: 1 added, 0 enrolled before, 2 left out" in capsys.readouterr().out
    first, second, black, broken = ask(
        folder, "--faces=all", "--detector=d", photos="group"
    )
    assert first["photo"] == second["photo"] == "group/a.png"
    assert first["person"] == "a"
    assert first["score"] == pytest.approx(1, abs=1e-5)  # the one that is enrolled
    for record in (first, second):
        left, top, right, bottom = record["box"]
        assert 0 <= left < right <= 90
        assert 0 <= top < bottom <= 60
    assert first["box"] != second["box"]
    assert black["reason"] == "no face was detected"
    assert broken["reason"].startswith("the image must be")
    out = capsys.readouterr().out
    assert (
        "3 given: 1 used, 2 left out (no usable face 1, unreadable 1); 2 faces: 2"
        in out
    )


def test_a_face_that_cannot_be_aligned_is_counted(folder, detector, rng, capsys):
    photos = folder / "group"
    photos.mkdir()
    Image.fromarray(bright_photo(rng, 60, 60)).save(photos / "a.png")
    found = f"--photos={photos}", "--detector=d"
    main(on_gallery("enroll", folder, *found))
    detector["points"] = np.full((5, 2), 0.5, np.float32)
    detector["other"] = POINTS / 4 + 0.35
    (record,) = ask(folder, "--faces=all", "--detector=d", photos="group")
    assert record["person"] == "a"
    out, err = capsys.readouterr()
    assert "2 given: 1 used, 1 left out (further face 1); 1 face: 1 identified" in out
    assert "left out: a.png: the keypoints of its face lie within one pixel" in err


def test_a_gallery_remembers_what_the_network_sees(folder, capsys):
    rng = np.random.default_rng(0)
    for file in folder.glob("photos/*/*.png"):  # of any size
        Image.fromarray(bright_photo(rng, 40, 50)).save(file)
    enroll(folder, "--align=none")
    first = folder / "photos" / "ann" / "0.png"
    (found,) = ask(folder, "--far=1", photos=first)
    assert found["person"] == "ann"
    given = on_gallery("identify", folder, f"--photos={first}", "--align=template")
    error = fails(capsys, *given)
    assert "are 16 x 8, RGB, (x - 127.5) / 127.5, whole photo, no keypoints" in error
    assert "those of tiny are 16 x 8" in error


def test_a_large_gallery_is_shared_by_all_devices(folder, monkeypatch):
    enroll(folder)
    want = ask(folder)
    monkeypatch.setattr(library, "_LARGE", 1)
    found = ask(folder)
    assert [x["person"] for x in found] == [x["person"] for x in want]
    for ours, theirs in zip(found, want, strict=True):
        assert ours["score"] == pytest.approx(theirs["score"], abs=1e-6)
