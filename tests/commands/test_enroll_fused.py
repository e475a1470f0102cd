"""Fusion as a stage: one entry a person, remembered by the gallery, asked alike."""

import json
import shutil
import sys
import types

import numpy as np
import pytest
from PIL import Image

from kprpe_jax.commands.main import main
from kprpe_jax.core.features import Features, concatenate
from kprpe_jax.data.feature_file import read_feature_file
from kprpe_jax.evaluation.protocols import gallery_search
from kprpe_jax.gallery.fused_photos import FUSED_FIELDS
from kprpe_jax.gallery.gallery import Gallery
from kprpe_jax.gallery.photos import FIELDS, embed_photos, list_photos
from tests.commands.run_verb import enroll, fails, on_gallery
from tests.gallery.fusions import assert_same_direction, fuse_by_hand, save_fusion
from tests.gallery.tiny import PEOPLE, SIZE, photo, tiny_recognizer

pytestmark = pytest.mark.usefixtures("networks")


@pytest.fixture
def learned(tmp_path):
    save_fusion(tmp_path / "caface.safetensors", tiny_recognizer("w"))
    return str(tmp_path / "caface.safetensors")


def features_of(path):
    """Features of all faces of a folder, and the number of them."""
    fields = (*FIELDS, *FUSED_FIELDS)
    found = [
        x.features
        for x in embed_photos(list_photos(path), tiny_recognizer("w"), fields=fields)
    ]
    return concatenate(found)


def read(folder):
    with Gallery(folder / "people.gallery") as gallery:
        contents, header = gallery.read(), gallery.header
        features, everybody = contents.features, np.arange(len(contents.people))
        if features.patches is not None:
            stored = features.patches[everybody], features.keypoints[everybody]
            features = Features(features.embeddings, stored[0], keypoints=stored[1])
        return contents._replace(features=features), header


@pytest.mark.parametrize("name", ["average", "norm", "landmark_score", "learned"])
def test_an_entry_is_what_fusing_by_hand_gives(folder, learned, name, capsys):
    spec = learned if name == "learned" else name
    enroll(folder, f"--fusion={spec}", "--patches=float32")
    told = capsys.readouterr().out
    assert told.startswith(
        "6 given: 6 used, 0 enrolled before, 0 left out; 3 people: 3 added, 0 enrolled "
        "before, 0 replaced, 0 without a usable photo; "
    )
    assert told.endswith("holds 3 entries of 3 people\n")
    contents, header = read(folder)
    assert contents.people == sorted(PEOPLE)
    assert contents.photos == [f"{x}/fused" for x in sorted(PEOPLE)]
    assert contents.num_images.tolist() == [2, 2, 2]
    assert (header.fusion.name, header.fusion.spec) == (spec, spec)
    for row, person in enumerate(contents.people):
        features = features_of(folder / "photos" / person)
        # Aligned faces are where they belong: all landmark scores are 1.
        by_hand = "average" if name == "landmark_score" else spec
        want = fuse_by_hand(by_hand, features)
        assert_same_direction(contents.features.embeddings[row], want)
        for field in ("patches", "keypoints"):
            got = getattr(contents.features, field)[row]
            want = getattr(features, field).mean(0)
            np.testing.assert_allclose(got, want, atol=1e-4)


def identify(folder, *arguments, photos="photos", model=None):
    output = folder / "answers.json"
    given = f"--photos={folder / photos}", f"--output={output}", "--probe=folder"
    main(on_gallery("identify", folder, *given, *arguments, model=model))
    return json.loads(output.read_text())


def test_the_gallery_remembers_its_fusion(folder, learned, capsys):
    enroll(folder, f"--fusion={learned}")
    shutil.copytree(folder / "photos" / "bob", folder / "more" / "dan")
    for number in range(2):
        (folder / "more" / "dan" / f"{number}.png").write_bytes(photo(5, number))
    given = f"--photos={folder / 'more'}"
    main(on_gallery("enroll", folder, given, model=None))
    assert "1 person: 1 added" in capsys.readouterr().out
    contents, header = read(folder)
    want = fuse_by_hand(learned, features_of(folder / "more" / "dan"))
    assert contents.photos[-1] == "dan/fused"
    assert_same_direction(contents.features.embeddings[-1], want)
    assert header.fusion.spec == learned
    answers = identify(folder)
    assert [x["photo"] for x in answers] == [f"photos/{x}" for x in sorted(PEOPLE)]
    for answer in answers:  # the same photos, fused alike
        assert answer["ranking"][0]["person"] == answer["photo"].split("/")[1]
        assert answer["ranking"][0]["score"] == pytest.approx(1, abs=1e-4)
    capsys.readouterr()
    main(["gallery", "list", f"--gallery={folder / 'people.gallery'}"])
    assert f"fusion: {learned}" in capsys.readouterr().err
    # It has moved, and the gallery is told.
    other = folder / "moved.safetensors"
    shutil.move(learned, other)
    ask = on_gallery("enroll", folder, given, model=None)
    told = fails(capsys, *ask)
    assert f"was made with {learned}, which is not there any more; say with" in told
    assert identify(folder, f"--fusion={other}")[0]["ranking"][0]["person"] == "ann"
    main([*ask, f"--fusion={other}"])
    assert read(folder)[1].fusion.spec == str(other)
    assert identify(folder)[0]["ranking"][0]["person"] == "ann"


def test_another_fusion_is_refused(folder, learned, capsys):
    enroll(folder, "--fusion=average")
    before = (folder / "people.gallery").read_bytes()
    photos = f"--photos={folder / 'photos'}"
    for name in ("norm", learned):
        for verb, *more in (("enroll",), ("identify", "--probe=folder")):
            given = photos, f"--fusion={name}", *more
            told = fails(capsys, *on_gallery(verb, folder, *given))
            assert told.count("\n") == 1
            assert "the entries of" in told
            assert "are fused by average (" in told
            assert f"not fused by {name} (" in told
    assert (folder / "people.gallery").read_bytes() == before
    (folder / "people.gallery").unlink()
    enroll(folder)
    before = (folder / "people.gallery").read_bytes()
    told = fails(capsys, *on_gallery("enroll", folder, photos, "--fusion=norm"))
    assert "are of a photo each, not fused by norm (" in told
    assert (folder / "people.gallery").read_bytes() == before
    # A gallery of photos may be asked by any fusion; one photo needs none.
    assert len(identify(folder, "--fusion=norm")) == 3
    given = photos, "--fusion=norm"
    told = fails(capsys, *on_gallery("identify", folder, *given))
    assert "--fusion fuses a folder or a video; give --probe folder" in told


def test_an_entry_is_of_the_files_given(folder, capsys):
    """The same files: passed over, whatever their names; others: replaced."""
    enroll(folder, "--fusion=norm")
    enroll(folder)
    assert "0 added, 3 enrolled before, 0 replaced" in capsys.readouterr().out
    ann = folder / "photos" / "ann"
    (ann / "0.png").rename(ann / "renamed.png")
    enroll(folder)
    assert "0 added, 3 enrolled before, 0 replaced" in capsys.readouterr().out
    (ann / "2.png").write_bytes(photo(0, 2))
    enroll(folder)
    told = capsys.readouterr().out
    assert "replaced: ann, 2 images, by 3 images\n" in told
    assert "0 added, 2 enrolled before, 1 replaced" in told
    contents, _ = read(folder)
    assert contents.people.count("ann") == 1
    row = contents.people.index("ann")
    assert contents.num_images[row] == 3
    want = fuse_by_hand("norm", features_of(ann))
    assert_same_direction(contents.features.embeddings[row], want)
    given = f"--photos={folder / 'queries' / '1.png'}"
    with Gallery(folder / "people.gallery") as gallery:
        assert gallery.header.fusion.name == "norm"
    main(["gallery", "replace", "bob", given, f"--gallery={folder / 'people.gallery'}"])
    told = capsys.readouterr().out
    assert told == (
        "1 given: 1 used, 0 enrolled before, 0 left out; replaced: bob, 2 images, by "
        "1 image\n"
    )
    ask = "gallery", "replace", "bob", given, f"--gallery={folder / 'people.gallery'}"
    assert "keeps one fused entry a person" in fails(capsys, *ask, "--photo=bob/fused")


def test_a_fusion_of_other_features_makes_no_gallery(folder, learned, capsys):
    save_fusion(folder / "other.safetensors", tiny_recognizer("longer name"))
    photos = f"--photos={folder / 'photos'}"
    for name, match in (
        (folder / "other.safetensors", "the fusion model is of the recognizer "),
        (folder / "absent.safetensors", "must be a fusion model written by save_mod"),
        ("mean", "--fusion mean: must be average, norm, landmark_score,"),
    ):
        given = photos, f"--fusion={name}"
        told = fails(capsys, *on_gallery("enroll", folder, *given))
        assert match in told
        assert told.count("\n") == 1
        assert not (folder / "people.gallery").exists()
    enroll(folder)
    given = photos, "--probe=folder", f"--fusion={folder / 'other.safetensors'}"
    told = fails(capsys, *on_gallery("identify", folder, *given))
    assert "the fusion model is of the recognizer " in told


def test_empty_folders_and_bad_photos(folder, capsys):
    (folder / "photos" / "dora").mkdir()
    given = f"--photos={folder / 'photos'}", "--fusion=average"
    told = fails(capsys, *on_gallery("enroll", folder, *given))
    assert "dora: it holds no photo; or leave" in told
    assert not (folder / "people.gallery").exists()
    (folder / "photos" / "eva").mkdir()
    (folder / "photos" / "eva" / "0.png").write_bytes(b"no photo")
    shutil.copy(folder / "photos/ann/0.png", folder / "photos/bob/ann.png")
    enroll(folder, "--fusion=average", "--on-error=skip")
    out, err = capsys.readouterr()
    assert "5 people: 3 added, 0 enrolled before, 0 replaced, 2 without" in out
    assert "6 used, 0 enrolled before, 3 left out (empty folder 1, same file 1" in out
    assert "left out: dora: it holds no photo" in err
    assert "left out: eva/0.png: " in err
    assert "left out: bob/ann.png: it is the same file as ann/0.png" in err
    assert "without a usable photo: eva" in err
    assert read(folder)[0].num_images.tolist() == [2, 2, 2]
    asked = identify(folder, "--on-error=skip")
    reasons = {x["photo"]: x.get("reason") for x in asked}
    assert reasons["photos/dora"] == "it holds no photo"
    assert reasons["photos/ann"] is None
    given = f"--photos={folder / 'photos'}", "--probe=folder", "--on-error=fail"
    told = fails(capsys, *on_gallery("identify", folder, *given))
    assert "dora: it holds no photo; or leave" in told


def test_what_stands_before_an_error_stays(folder, capsys):
    """Whole entries alone; the same command goes on when the photo is mended."""
    bad = folder / "photos" / "bob" / "1.png"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:40])
    given = f"--photos={folder / 'photos'}", "--fusion=average"
    told = fails(capsys, *on_gallery("enroll", folder, *given))
    assert "error: bob/1.png: " in told
    contents, _ = read(folder)
    assert (contents.people, contents.num_images.tolist()) == (["ann"], [2])
    bad.write_bytes(whole)
    enroll(folder)
    assert "2 added, 1 enrolled before, 0 replaced" in capsys.readouterr().out
    assert read(folder)[0].num_images.tolist() == [2, 2, 2]
    # A photo that is bad on another day leaves the entry as it is.
    bad.write_bytes(whole[:40])
    (folder / "photos" / "bob" / "0.png").unlink()
    enroll(folder, "--on-error=skip")
    out, err = capsys.readouterr()
    assert "0 replaced, 1 without a usable photo" in out
    assert read(folder)[0].num_images.tolist() == [2, 2, 2]


def test_fused_files_enter_the_protocols(folder):
    """What `fuse` writes is searched as templates are."""
    fused = []
    for name in ("photos", "probes"):
        if name == "probes":
            for number, person in enumerate(PEOPLE):
                for other in range(10, 13):
                    file = folder / name / person / f"{other}.png"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(photo(number, other))
        given = f"--photos={folder / name}", f"--output={folder / ('f' + name)}"
        main(["fuse", *given, "--model=w", "--fusion=norm"])
        files = [read_feature_file(folder / f"f{name}" / f"{x}.npz") for x in PEOPLE]
        fused.append(concatenate([file.features for file in files]).embeddings)
    fused = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in fused]
    people = np.arange(len(PEOPLE))
    found = gallery_search(fused[1], people, [(fused[0], people)], ranks=(1,), fpirs=())
    assert found.rank[0] == 1


def write_video(monkeypatch, path, frames, number):
    """A file that stands for `number` equal frames, read in OpenCV's place."""

    class Frames:
        def __init__(self, path):
            self.left = number

        def get(self, what):
            return number

        def read(self):
            self.left -= 1
            return self.left >= 0, frames[..., ::-1]

        def release(self):
            pass

    path.write_bytes(b"frames")
    fake = types.SimpleNamespace(VideoCapture=Frames, CAP_PROP_FRAME_COUNT=7)
    monkeypatch.setitem(sys.modules, "cv2", fake)


@pytest.mark.parametrize("name", ["average", "landmark_score", "learned"])
@pytest.mark.parametrize("number", [1, 1000])
def test_equal_frames_are_one_frame(folder, learned, monkeypatch, number, name):
    """A video of one frame, and of a thousand equal ones, is that frame."""
    spec = learned if name == "learned" else name
    pixels = np.asarray(Image.open(folder / "queries" / "0.png"))[:, 2:-2]
    assert pixels.shape == (*SIZE, 3)
    (folder / "video").mkdir()
    write_video(monkeypatch, folder / "video" / "zoe.avi", pixels, number)
    given = f"--photos={folder / 'video'}", f"--fusion={spec}", "--patches=float32"
    main(on_gallery("enroll", folder, *given))
    contents, _ = read(folder)
    assert contents.people == ["zoe"]
    assert contents.num_images.tolist() == [number]
    features = features_of(folder / "queries" / "0.png")
    got = contents.features.embeddings
    assert_same_direction(got, features.embeddings, atol=1e-3)
    got = contents.features.patches
    np.testing.assert_allclose(got, features.patches, rtol=1e-4, atol=1e-4)


def test_fused_files_enter_alike(folder, learned, capsys):
    """`fuse` and `enroll --features` give the gallery of `enroll --fusion`."""
    enroll(folder, f"--fusion={learned}", "--patches=none")
    direct, header = read(folder)
    (folder / "people.gallery").unlink()
    given = f"--photos={folder / 'photos'}", f"--output={folder / 'fused'}"
    main(["fuse", *given, "--model=w", f"--fusion={learned}"])
    features = f"--features={folder / 'fused'}"
    main(on_gallery("enroll", folder, features, "--patches=none"))
    contents, by_features = read(folder)
    assert by_features.fusion == header.fusion
    assert contents.people == direct.people
    assert contents.num_images.tolist() == direct.num_images.tolist()
    np.testing.assert_allclose(
        contents.features.embeddings, direct.features.embeddings, atol=1e-5
    )
    assert identify(folder)[2]["person"] == sorted(PEOPLE)[2]
    capsys.readouterr()
    # The entries are the people's: photos replace them, features do not.
    main(on_gallery("enroll", folder, f"--photos={folder / 'photos'}", model=None))
    assert "3 replaced" in capsys.readouterr().out
    told = fails(capsys, *on_gallery("enroll", folder, features))
    assert "ann/ann: ann has an entry; remove it first" in told
    given = f"--photos={folder / 'photos'}", f"--output={folder / 'fused'}"
    main(["fuse", *given, "--model=w", "--fusion=norm"])
    told = fails(capsys, *on_gallery("enroll", folder, features))
    assert "not fused by norm (" in told
    told = fails(capsys, *on_gallery("enroll", folder, features, "--fusion=norm"))
    assert "--features are fused already" in told
    embedded = folder / "faces.npz"
    given = f"--photos={folder / 'photos'}", f"--output={embedded}"
    main(["embed", *given, "--model=w"])
    told = fails(capsys, *on_gallery("enroll", folder, f"--features={embedded}"))
    assert "not of a photo each" in told
