"""The verify command, with a network of two layers and with released weights."""

import pathlib

import pytest

from kprpe_jax.commands.main import main
from kprpe_jax.gallery import thresholds
from tests.commands.run_verb import fails
from tests.gallery.tiny import tiny_recognizer

DATA = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"
WEIGHTS = DATA / "weights" / "mobilefacenet.npz"
needs_data = pytest.mark.skipif(not WEIGHTS.is_file(), reason=f"no weights: {WEIGHTS}")


def told(capsys, *arguments):
    capsys.readouterr()
    main(["verify", *map(str, arguments)])
    return dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())


@pytest.mark.usefixtures("networks")
def test_same_and_other_people(folder, capsys, monkeypatch):
    own = folder / "photos" / "ann" / "0.png", folder / "photos" / "ann" / "1.png"
    other = own[0], folder / "photos" / "cleo" / "0.png"
    same = told(capsys, *own, "--model=w", "--threshold=0.9")
    assert same["same person"] == "yes"
    assert float(same["score"]) > 0.9
    assert same["threshold"] == "0.9"
    assert same["false-acceptance rate"] == "unknown for this threshold and network"
    assert told(capsys, *other, "--model=w", "--threshold=0.9")["same person"] == "no"
    without = told(capsys, *own, "--model=w")
    assert without["same person"] == "undecided"
    assert without["threshold"] == "none was measured for tiny; give --threshold"
    made = thresholds.MeasuredThreshold(0.9, 0.001, 0.9, "some pairs", "another's")
    monkeypatch.setitem(thresholds.THRESHOLDS, "tiny", made)
    assert told(capsys, *own, "--model=w")["same person"] == "undecided"
    measured = made._replace(fingerprint=tiny_recognizer("w").fingerprint)
    monkeypatch.setitem(thresholds.THRESHOLDS, "tiny", measured)
    same = told(capsys, *own, "--model=w")
    assert same["same person"] == "yes"
    assert same["false-acceptance rate"] == "0.001 (some pairs)"


@pytest.mark.usefixtures("networks")
def test_errors(folder, capsys):
    photo, bad = folder / "photos" / "ann" / "0.png", folder / "bad.png"
    bad.write_bytes(b"no photo")
    error = fails(capsys, "verify", photo, bad, "--model=w", status=1)
    assert f"error: {bad}: the image must be a whole JPEG" in error
    error = fails(capsys, "verify", photo, folder / "none.png", "--model=w")
    assert "none.png must be a photo, a video or a folder" in error
    error = fails(capsys, "verify", photo, photo, "--model=w", "--threshold=7")
    assert "--threshold must lie in [-1, 1]; got 7" in error
    assert "required: PHOTO" in fails(capsys, "verify", photo, "--model=w")


@needs_data
@pytest.mark.slow
def test_released_weights_on_photos(capsys):
    folder = DATA / "lfw_small" / "lfw-align-128"
    first, second, *_ = sorted(folder.iterdir())
    models = [f"--model=mobilefacenet:{WEIGHTS}",
              f"--detector=retinaface_mnet025:{WEIGHTS.with_name('retinaface_mnet025.npz')}"]  # noqa: E501  # fmt: skip
    pair, other = sorted(first.glob("*"))[:2], sorted(second.glob("*"))[0]
    same = told(capsys, *pair, *models)
    assert same["same person"] == "yes"
    assert same["false-acceptance rate"] == "0.001 (6,000 pairs of LFW)"
    assert told(capsys, pair[0], other, *models)["same person"] == "no"
