"""Features of `embed` and `fuse` enter galleries, and are found again."""

import json

import numpy as np
import pytest

from kprpe_jax.commands.main import main
from kprpe_jax.data.feature_file import read_feature_file
from kprpe_jax.gallery.gallery import Gallery
from tests.commands.run_verb import fails, on_gallery
from tests.gallery.tiny import PEOPLE

pytestmark = pytest.mark.usefixtures("networks")


@pytest.fixture
def fused(folder):
    """The people of the folder, fused."""
    given = ["fuse", f"--photos={folder / 'photos'}", f"--output={folder / 'fused'}"]
    main([*given, "--model=w", "--fusion=average"])
    return folder / "fused"


def enroll(folder, features, *arguments):
    given = f"--features={features}", "--patches=none", *arguments
    main(on_gallery("enroll", folder, *given))


def test_fused_people_are_identified(folder, fused, capsys):
    enroll(folder, fused)
    told = "3 given: 3 added, 0 enrolled before, 0 left out; "
    assert told in capsys.readouterr().out
    enroll(folder, fused)
    assert "0 added, 3 enrolled before" in capsys.readouterr().out
    with Gallery(folder / "people.gallery") as gallery:
        contents = gallery.read()
        assert gallery.header.license == "for tests"  # of the network's card
    for path in fused.glob("*.npz"):
        assert read_feature_file(path).about["license"] == "for tests"
    assert contents.people == sorted(PEOPLE)
    assert contents.num_images.tolist() == [2, 2, 2]
    output = folder / "answers.json"
    photo = folder / "photos" / "bob" / "0.png"
    ask = f"--photos={photo}", f"--output={output}"
    main(on_gallery("identify", folder, *ask))
    (answer,) = json.loads(output.read_text())
    assert answer["ranking"][0]["person"] == "bob"


def test_embedded_photos_enter(folder, capsys):
    features = folder / "faces.npz"
    given = ["embed", f"--photos={folder / 'photos'}", f"--output={features}"]
    main([*given, "--model=w"])
    enroll(folder, features)
    with Gallery(folder / "people.gallery") as gallery:
        assert gallery.people() == dict.fromkeys(PEOPLE, 2)
        lengths = np.linalg.norm(gallery.read().features.embeddings, axis=-1)
    assert np.isfinite(lengths).all()


def test_what_does_not_fit_is_refused(folder, fused, capsys):
    given = f"--features={fused}"
    told = fails(capsys, *on_gallery("enroll", folder, given))
    assert "have no patches and" in told
    assert "--patches none" in told
    assert not (folder / "people.gallery").exists()
    ask = given, "--patches=none"
    told = fails(capsys, *on_gallery("enroll", folder, *ask, model="other"))
    assert "they cannot be compared; make the features with the gallery" in told
    assert not (folder / "people.gallery").exists()
    both = f"--photos={folder / 'photos'}", *ask
    for arguments in (both, ("--patches=none",)):
        told = fails(capsys, *on_gallery("enroll", folder, *arguments))
        assert "give either --photos or --features" in told
    (folder / "empty").mkdir()
    empty = f"--features={folder / 'empty'}", "--patches=none"
    assert "must hold .npz files" in fails(
        capsys, *on_gallery("enroll", folder, *empty)
    )
    enroll(folder, fused)
    again = folder / "again.npz"
    archive = dict(np.load(fused / "ann.npz"))
    np.savez(again, **{**archive, "embeddings": 2 * archive["embeddings"]})
    told = fails(capsys, *on_gallery("enroll", folder, f"--features={again}",
                                     "--patches=none"))  # fmt: skip
    assert "ann/ann: another photo of this name is enrolled" in told
    enroll(folder, again, "--on-error=skip")
    assert "1 given: 0 added, 0 enrolled before, 1 left out" in capsys.readouterr().out
