"""What a gallery remembers of its networks, and what it refuses."""

import pytest

from kprpe_jax import recognizers
from kprpe_jax.gallery import networks
from kprpe_jax.gallery.gallery import Gallery
from kprpe_jax.gallery.networks import load_gallery_networks
from tests.detection.stand_in import stand_in
from tests.gallery.made import entries
from tests.gallery.tiny import tiny_recognizer


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with weights; a SPEC names a file there, which must be there."""

    def existing(spec):
        path = tmp_path / spec.rpartition(":")[2]
        if not path.is_file():
            raise ValueError(f"there is no file {spec}")
        return path.name

    def load_recognizer(spec):
        return tiny_recognizer(existing(spec))

    def load_detector(spec, min_score=0.5, max_side=1024):
        options = f"{existing(spec)} {min_score} {max_side}"
        return stand_in()._replace(name="stand-in", fingerprint=options)

    monkeypatch.setattr(recognizers, "load_recognizer", load_recognizer)
    monkeypatch.setattr(recognizers, "load_detector", load_detector)
    monkeypatch.chdir(tmp_path)
    for name in ("weights", "longer weights", "detector", "other detector"):
        (tmp_path / name).write_text(name)
    return tmp_path


def make(path, *given, **options):
    """A gallery of one entry, made as `enroll` does."""
    networks = load_gallery_networks(path, *given, **options)
    with Gallery(path, create=networks.header("none")) as gallery:
        (entry, *_) = entries(["ann"])
        features = entry.features._replace(
            embeddings=entry.features.embeddings[:5], patches=None, keypoints=None
        )
        gallery.add([entry._replace(features=features)])
    return networks


def test_nothing_needs_to_be_named_again(place, monkeypatch):
    path = place / "people.gallery"
    made = make(path, "tiny:weights", "d:detector", min_score=0.3)
    monkeypatch.chdir(place.parent)  # the paths are absolute
    again = load_gallery_networks(path)
    assert again.recognizer.fingerprint == made.recognizer.fingerprint
    assert again.detector.fingerprint == "detector 0.3 1024"
    assert again.patches == "none"
    source = again.recognizer_source
    assert (source.spec, source.resolved) == ("tiny:weights", f"tiny:{place}/weights")
    assert again.header() == made.header("none")
    # Another least score finds other faces, and frames them alike.
    wider = load_gallery_networks(path, min_score=0.1, max_side=64)
    assert wider.detector.fingerprint == "detector 0.1 64"
    assert load_gallery_networks(path, detector="none").detector is None


def test_a_gallery_of_aligned_faces_takes_any_detector(place):
    path = place / "people.gallery"
    make(path, "tiny:weights")
    assert load_gallery_networks(path).detector is None
    networks = load_gallery_networks(path, detector="d:detector", max_side=64)
    assert networks.detector.fingerprint == "detector 0.5 64"
    Gallery(path, create=networks.header()).__exit__()  # enroll remembers it
    assert load_gallery_networks(path).detector.fingerprint == "detector 0.5 64"


def test_a_file_that_moved(place):
    path = place / "people.gallery"
    make(path, "tiny:weights", "d:detector")
    (place / "moved").mkdir()
    for name, option in (("weights", "--model"), ("detector", "--detector")):
        (place / name).rename(place / "moved" / name)
        message = f"{name}, which is not there any more; say with {option} SPEC where"
        with pytest.raises(ValueError, match=message):
            load_gallery_networks(path)
        (place / "moved" / name).rename(place / name)
    (place / "weights").rename(place / "moved" / "weights")
    moved = load_gallery_networks(path, "tiny:moved/weights")
    Gallery(path, create=moved.header()).__exit__()
    resolved = load_gallery_networks(path).recognizer_source.resolved
    assert resolved == f"tiny:{place}/moved/weights"


def test_other_networks_are_refused(place, monkeypatch):
    monkeypatch.setattr(networks, "installed_file", lambda name: None)
    path = place / "people.gallery"
    make(path, "tiny:weights", "d:detector")
    with pytest.raises(ValueError, match="made by tiny .* not by tiny .* enroll every"):
        load_gallery_networks(path, "tiny:longer weights")
    with pytest.raises(
        ValueError, match="were detected by stand-in .*, not by stand-i"
    ):
        load_gallery_networks(path, detector="d:other detector")
    with pytest.raises(ValueError, match="there is no file tiny:nowhere"):
        load_gallery_networks(path, "tiny:nowhere")
    with pytest.raises(
        ValueError, match="there is none at .*, and a new one needs --m"
    ):
        load_gallery_networks(place / "new.gallery")


def test_a_gallery_that_does_not_know_its_files(place):
    path = place / "people.gallery"
    made = make(path, "tiny:weights")
    with Gallery(path) as gallery:
        unknown = gallery.header.recognizer._replace(spec="", resolved="")
        with gallery._database.transaction():
            header = gallery.header._replace(recognizer=unknown)
            gallery._database.write_header(header)
    with pytest.raises(
        ValueError, match="does not know where tiny lies; give it with "
    ):
        load_gallery_networks(path)
    named = load_gallery_networks(path, "tiny:weights")
    Gallery(path, create=named.header()).__exit__()
    assert load_gallery_networks(path).header() == made.header("none")
