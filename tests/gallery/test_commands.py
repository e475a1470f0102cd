"""Enrollment and identification by the commands, with a network of two layers."""

import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from kprpe_jax.core.features import Features
from kprpe_jax.data.importers.image_folder import open_image_folder
from kprpe_jax.gallery import command, enroll, identify
from kprpe_jax.gallery.encoder import Encoder, fingerprint
from kprpe_jax.gallery.gallery import Gallery

PEOPLE = ("ann", "bob", "cleo")


def tiny_encoder(weights):
    """Fingerprint and weights depend on the name."""
    rng = np.random.default_rng(len(weights))
    kernel = jnp.asarray(rng.normal(size=(8 * 8 * 3, 6)), jnp.float32)
    head = jnp.asarray(rng.normal(size=(2 * 6, 5)), jnp.float32)

    def embed(images, keypoints):
        patches = images.reshape(len(images), 2, 8 * 8 * 3) @ kernel
        return Features(patches.reshape(len(images), -1) @ head, patches)

    return Encoder("tiny", weights, (16, 8), (2, 1), embed)


@pytest.fixture(autouse=True)
def network(monkeypatch):
    monkeypatch.setattr(command, "mobilefacenet_encoder", tiny_encoder)


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def photo(person, number):
    """A person's pattern with a little noise, 16 x 12: two columns too many."""
    pattern = np.random.default_rng(100 + person).uniform(30, 220, size=(16, 12, 3))
    noise = np.random.default_rng(1000 * person + number).normal(0, 4, (16, 12, 3))
    return png((pattern + noise).astype(np.uint8))


@pytest.fixture
def folder(tmp_path):
    for person, name in enumerate(PEOPLE):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(2):
            file = tmp_path / "photos" / name / f"{number}.png"
            file.write_bytes(photo(person, number))
    return tmp_path


def call(main, folder, *arguments, weights="w"):
    given = [f"--gallery={folder / 'people.gallery'}", *map(str, arguments)]
    main([*given, f"--weights={weights}"] if weights else given)


def enrolled(folder, *arguments, **options):
    call(enroll.main, folder, "--photos", folder / "photos", *arguments, **options)


def fails(capsys, run, *arguments, **options):
    with pytest.raises(SystemExit) as stopped:
        run(*arguments, **options)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def contents(folder):
    with Gallery(folder / "people.gallery") as gallery:
        return gallery.people()


def answers(folder, *arguments, **options):
    output = folder / "answers.json"
    call(identify.main, folder, f"--output={output}", *arguments, **options)
    return json.loads(output.read_text())


@pytest.mark.parametrize("patches", ["bfloat16", "none"])
def test_enrol_and_identify(folder, capsys, patches):
    enrolled(folder, f"--patches={patches}")
    assert "6 photos added, 0 were there, 0 left out" in capsys.readouterr().out
    (folder / "queries").mkdir()
    for person in range(3):
        (folder / "queries" / f"{person}.png").write_bytes(photo(person, 7))
    results = answers(folder, f"--photos={folder / 'queries'}", "--ranks=1")
    shown = capsys.readouterr().out
    for result, name in zip(results, PEOPLE, strict=True):
        ranked = result["answers"]
        assert [answer["rank"] for answer in ranked] == [1, 2, 3, 4, 5, 6]
        assert {ranked[0]["person"], ranked[1]["person"]} == {name}
        assert ranked[0]["photo"].startswith(f"{name}/")
        scores = [answer["score"] for answer in ranked]
        assert scores == sorted(scores, reverse=True)
        for answer in ranked:
            mixed = answer["cosine"]
            if patches != "none":
                mixed = 0.7 * answer["patches"] + 0.3 * answer["cosine"]
            assert answer["score"] == pytest.approx(mixed, abs=1e-6)
        assert name in shown
    cosine = answers(folder, f"--photos={folder / 'queries' / '0.png'}", "--k=0")
    assert len(cosine) == 1
    assert cosine[0]["answers"][0]["patches"] is None
    assert cosine[0]["answers"][0]["person"] == "ann"


def test_enrolling_again_adds_what_is_new(folder, capsys):
    enrolled(folder)
    (folder / "photos" / "bob" / "9.png").write_bytes(photo(1, 9))
    enrolled(folder)
    assert "1 photos added, 6 were there" in capsys.readouterr().out
    assert contents(folder) == {"ann": 2, "bob": 3, "cleo": 2}
    call(enroll.main, folder, "--remove=ann,cleo", weights="")
    assert "removed: 2 people, 4 photos; 3 photos remain" in capsys.readouterr().out
    enrolled(folder)
    assert contents(folder) == {"ann": 2, "bob": 3, "cleo": 2}


def test_interrupted_enrollment_goes_on(folder, monkeypatch):
    """The batch that was not finished is done again, the others are not."""
    monkeypatch.setattr(enroll, "BATCH", 2)
    encoder = tiny_encoder("w")
    prepare = command.aligned_photos(encoder)
    seen = []

    def prepare_some(encoded):
        if len(seen) == 5:
            raise KeyboardInterrupt
        seen.append(encoded)
        return prepare(encoded)

    model = enroll.describe_model(encoder, "int8")
    source = open_image_folder(folder / "photos")
    path = folder / "people.gallery"
    with Gallery(path, create=model) as gallery, pytest.raises(KeyboardInterrupt):
        enroll.enroll(gallery, source, encoder, prepare_some)
    assert contents(folder) == {"ann": 2, "bob": 2}
    enrolled(folder, "--patches=int8")
    assert contents(folder) == {"ann": 2, "bob": 2, "cleo": 2}


def test_photos_without_a_face(folder, capsys):
    (folder / "photos" / "bob" / "0a.png").write_bytes(b"no picture")
    wide = png(np.zeros((30, 40, 3), np.uint8))
    (folder / "photos" / "cleo" / "0a.png").write_bytes(wide)
    error = fails(capsys, enrolled, folder)
    assert "bob/0a.png: decode_rgb: the image must be a whole JPEG" in error
    enrolled(folder, "--on_error=skip")
    out, err = capsys.readouterr()
    assert "2 left out; " in out
    assert "left out: cleo/0a.png: it must be an aligned face of 16 x 8 pi" in err
    assert contents(folder) == dict.fromkeys(PEOPLE, 2)

    error = fails(capsys, answers, folder, f"--photos={folder / 'photos/bob/0a.png'}")
    assert "none of 1 photos could be answered" in error
    results = answers(folder, f"--photos={folder / 'photos/bob'}")
    assert ["error" in result for result in results] == [False, True, False]


def test_photos_that_are_there_under_another_name(folder, capsys):
    enrolled(folder)
    (folder / "photos" / "dora").mkdir()
    (folder / "photos" / "dora" / "0.png").write_bytes(photo(0, 0))
    error = fails(capsys, enrolled, folder)
    assert "dora/0.png: it is the same file as ann/0.png; enroll it once" in error
    (folder / "photos" / "dora" / "0.png").unlink()
    (folder / "photos" / "dora" / "1.png").write_bytes(photo(3, 0))
    (folder / "photos" / "ann" / "0.png").write_bytes(photo(0, 8))
    error = fails(capsys, enrolled, folder)
    assert "ann/0.png: another photo of this name is enrolled" in error
    assert contents(folder) == dict.fromkeys(PEOPLE, 2)


def test_photos_that_come_twice_can_be_left_out(folder, capsys):
    """A copy in the same batch, a copy of what is there, a name that is taken."""
    enrolled(folder)
    (folder / "photos" / "ann" / "0.png").write_bytes(photo(0, 8))
    (folder / "photos" / "dora").mkdir()
    for name, given in (("0", (3, 0)), ("1", (3, 0)), ("2", (1, 0)), ("3", (3, 1))):
        (folder / "photos" / "dora" / f"{name}.png").write_bytes(photo(*given))
    capsys.readouterr()
    enrolled(folder, "--on_error=skip")
    out, err = capsys.readouterr()
    assert "2 photos added, 5 were there, 3 left out" in out
    assert err.splitlines() == [
        "left out: ann/0.png: another photo of this name is enrolled; rename it",
        "left out: dora/1.png: it is the same file as dora/0.png; enroll it once",
        "left out: dora/2.png: it is the same file as bob/0.png; enroll it once",
    ]
    assert contents(folder) == {**dict.fromkeys(PEOPLE, 2), "dora": 2}


def test_one_photo_of_one_person(folder, capsys):
    for name in ("bob", "cleo"):
        for file in (folder / "photos" / name).iterdir():
            file.unlink()
        (folder / "photos" / name).rmdir()
    (folder / "photos" / "ann" / "1.png").unlink()
    enrolled(folder)
    query = f"--photos={folder / 'photos/ann/0.png'}"
    (result,) = answers(folder, query)
    (answer,) = result["answers"]
    assert answer["person"] == "ann"
    assert answer["cosine"] == pytest.approx(1, abs=1e-5)
    error = fails(capsys, answers, folder, query, "--k=2")
    assert r"k in [0, 1], the size of the gallery; got 0.7 and 2" in error
    call(enroll.main, folder, "--remove=ann", weights="")
    assert "is empty; enroll people first" in fails(capsys, answers, folder, query)


def test_bad_input(folder, capsys):
    query = f"--photos={folder / 'photos' / 'ann'}"
    assert "there is none at" in fails(capsys, answers, folder, query)
    enrolled(folder)
    before = (folder / "people.gallery").read_bytes()
    cases = {
        "made by tiny (w), not by tiny (other)": dict(weights="other"),
        "the command needs one network: --weights file, or": dict(weights=""),
    }
    for message, options in cases.items():
        assert message in fails(capsys, answers, folder, query, **options)
        assert message in fails(capsys, enrolled, folder, **options)
    for message, arguments in {
        "alpha must lie in [0, 1] and k in [0, 6]": (query, "--alpha=1.5"),
        "got 0.7 and 7": (query, "--k=7"),
        "must be a photo, a video or a folder of them": ("--photos=nowhere",),
        "identify needs --photos": (),
        "--ranks of at least 1": (query, "--ranks=0"),
    }.items():
        assert message in fails(capsys, answers, folder, *arguments)
    assert "keeps patches as bfloat16; got int8" in fails(
        capsys, enrolled, folder, "--patches=int8"
    )
    for names in ("ann,ann", "nobody"):
        error = fails(capsys, call, enroll.main, folder, f"--remove={names}")
        assert "nobody was removed" in error
    assert "either --photos" in fails(capsys, call, enroll.main, folder)
    assert (folder / "people.gallery").read_bytes() == before
    (folder / "people.gallery").write_bytes(before[: len(before) // 2])
    assert "is damaged or no gallery" in fails(capsys, answers, folder, query)


def test_features_that_are_not_finite(folder, capsys, monkeypatch):
    def broken(weights):
        good = tiny_encoder(weights)

        def embed(images, keypoints):
            faces = good.embed(images, keypoints)
            bad = images.mean((1, 2, 3)) > -1  # not the blank image
            return faces._replace(
                patches=jnp.where(bad[:, None, None], jnp.nan, faces.patches)
            )

        return good._replace(embed=embed)

    monkeypatch.setattr(command, "mobilefacenet_encoder", broken)
    error = fails(capsys, enrolled, folder)
    assert "features of ann/0.png must be finite" in error
    assert contents(folder) == {}
    monkeypatch.setattr(command, "mobilefacenet_encoder", tiny_encoder)
    enrolled(folder)
    monkeypatch.setattr(command, "mobilefacenet_encoder", broken)
    error = fails(capsys, answers, folder, f"--photos={folder / 'photos' / 'ann'}")
    assert "patches must be finite" in error


def test_fingerprints_tell_networks_apart():
    """By architecture, by every weight, by where it stands; not by its container."""
    weights = {"params": {"a": np.arange(3.0), "b": {"c": np.zeros((2, 2))}}}
    known = fingerprint("net", weights)
    assert known == fingerprint("net", jax.tree.map(np.copy, weights))
    others = [
        fingerprint("another", weights),
        fingerprint("net", {"params": {"a": np.arange(3.0) + 1e-12, "b": {}}}),
        fingerprint("net", jax.tree.map(lambda x: x.astype(np.float32), weights)),
        fingerprint(
            "net", {"params": {"b": np.arange(3.0), "a": weights["params"]["b"]}}
        ),
    ]
    assert len({known, *others}) == 5
