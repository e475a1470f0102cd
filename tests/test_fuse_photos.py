"""People in folders and videos become embedding files; streams go on another day."""

import json
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from kprpe_jax import fuse_photos
from kprpe_jax.fusion.files import load_stream, save_model
from kprpe_jax.fusion.weighted import WeightedFusion
from kprpe_jax.weights.extractor import Extractor, Features
from tests.fusion.tiny import draw_variables, tiny_model

SIZE, D = 32, 6


def _extract(variables, images):
    """Brightness of thirds: depends on the image alone."""
    thirds = images.reshape(len(images), 2, SIZE // 2, SIZE, 3).mean((2, 3))
    statistics = jnp.ones((len(images), 5, 2)) * thirds.mean()
    return Features(variables["gain"] * thirds.reshape(-1, D), statistics)


EXTRACTOR = Extractor(
    "brightness", {"gain": np.float32(3)}, _extract, (SIZE, SIZE), "b"
)


def write_people(folder, rng):
    """Anna: 5 pictures; Ben: 1; Carl: a video of 4 frames."""
    for person, count in (("anna", 5), ("ben", 1)):
        (folder / person).mkdir(parents=True)
        for n in range(count):
            pixels = rng.integers(0, 256, (2, 1, 3), np.uint8)
            image = Image.fromarray(pixels.repeat(SIZE // 2, 0).repeat(SIZE, 1))
            image.save(folder / person / f"{n}.png")
    (folder / "carl.avi").write_bytes(b"")
    return folder


class Video:
    """In place of OpenCV's: four frames, redder and redder, in its order BGR."""

    def __init__(self, path):
        frames = [np.full((SIZE, SIZE, 3), (0, 0, 60 * n), np.uint8) for n in range(4)]
        self._left = frames if path.endswith("carl.avi") else []

    def read(self):
        return (True, self._left.pop(0)) if self._left else (False, None)

    def release(self):
        pass


@pytest.fixture(autouse=True)
def opencv(monkeypatch):
    fake = types.SimpleNamespace(VideoCapture=Video)
    monkeypatch.setitem(sys.modules, "cv2", fake)


@pytest.fixture
def average(tmp_path):
    path = tmp_path / "average.safetensors"
    return save_model(path, WeightedFusion(D, "average"), {}, backbone="b")


def embedding_of(folder, person):
    with np.load(folder / f"{person}.npz", allow_pickle=False) as archive:
        return archive["embedding"], json.loads(str(archive["about"]))


def test_everyone_gets_a_file(average, rng, tmp_path):
    people = write_people(tmp_path / "people", rng)
    counts = fuse_photos.fuse_people(
        people, tmp_path / "out", EXTRACTOR, average, batch_size=3
    )
    assert counts == {"anna": 5, "ben": 1, "carl": 4}
    images = [
        np.asarray(Image.open(people / "anna" / f"{n}.png")) / 127.5 - 1
        for n in range(5)
    ]
    thirds = np.stack([image[:: SIZE // 2, 0].ravel() for image in images])
    want = (thirds / np.linalg.norm(thirds, axis=-1, keepdims=True)).mean(0)
    got, about = embedding_of(tmp_path / "out", "anna")
    np.testing.assert_allclose(got, want / np.linalg.norm(want), atol=1e-5)
    assert about == {"person": "anna", "images": 5, "model": average.fingerprint}
    red, _ = embedding_of(tmp_path / "out", "carl")
    assert red[0] > red[1] + 0.1  # RGB, not BGR
    options = dict(batch_size=3, suffix="safetensors")
    fuse_photos.fuse_people(people, tmp_path / "st", EXTRACTOR, average, **options)
    stored = load_file(tmp_path / "st" / "anna.safetensors")
    np.testing.assert_allclose(stored["embedding"], got, atol=1e-6)


def test_a_stream_goes_on_tomorrow(average, rng, tmp_path):
    """Three days give what one day gives, and other models refuse the state."""
    whole = write_people(tmp_path / "whole", rng)
    days = [tmp_path / f"day{n}" for n in range(3)]
    for n, day in enumerate(days):
        (day / "anna").mkdir(parents=True)
        for file in sorted((whole / "anna").iterdir())[2 * n : 2 * n + 2]:
            (day / "anna" / file.name).write_bytes(file.read_bytes())
    output = tmp_path / "out"
    options = dict(batch_size=2)
    keep, resume = {"keep_state": True}, {"resume": True}
    counts = [
        fuse_photos.fuse_people(day, output, EXTRACTOR, average, **options, **kept)
        for day, kept in zip(days, (keep, resume, resume), strict=True)
    ]
    assert counts == [{"anna": 2}, {"anna": 4}, {"anna": 5}]
    assert load_stream(output / "anna.state.npz", average).images == 5
    fuse_photos.fuse_people(whole, tmp_path / "once", EXTRACTOR, average, batch_size=2)
    for got, want in zip(
        embedding_of(output, "anna"),
        embedding_of(tmp_path / "once", "anna"),
        strict=True,
    ):
        if isinstance(got, dict):
            assert got == want
        else:
            np.testing.assert_allclose(got, want, atol=1e-5)
    model = tiny_model(embed_dim=D)
    other = save_model(
        tmp_path / "caface.safetensors", model, draw_variables(model, rng), backbone="b"
    )
    with pytest.raises(ValueError, match="state of a model with these sizes"):
        fuse_photos.fuse_people(
            days[0], output, EXTRACTOR, other, **options, resume=True
        )


@pytest.mark.slow
def test_caface_streams_in_batches(rng, tmp_path):
    model = tiny_model(embed_dim=D)
    file = save_model(
        tmp_path / "caface.safetensors", model, draw_variables(model, rng), backbone="b"
    )
    people = write_people(tmp_path / "people", rng)
    fuse_photos.fuse_people(people, tmp_path / "out", EXTRACTOR, file, batch_size=4)
    got, _ = embedding_of(tmp_path / "out", "anna")
    assert np.isfinite(got).all()
    np.testing.assert_allclose(np.linalg.norm(got), 1, rtol=1e-5)
    ben, _ = embedding_of(tmp_path / "out", "ben")  # one image: its own direction
    image = np.asarray(Image.open(people / "ben" / "0.png")) / 127.5 - 1
    alone = image[:: SIZE // 2, 0].ravel()
    np.testing.assert_allclose(ben, alone / np.linalg.norm(alone), atol=1e-4)


def test_faults_are_one_sentence(average, rng, tmp_path):
    people = write_people(tmp_path / "people", rng)
    output = tmp_path / "out"

    def refused(match, folder=people, extractor=EXTRACTOR, file=average):
        with pytest.raises(ValueError, match=match) as error:
            fuse_photos.fuse_people(folder, output, extractor, file)
        assert "\n" not in str(error.value)

    (tmp_path / "nobody").mkdir()
    refused("must hold a folder of images or a video for each", tmp_path / "nobody")
    refused("must hold a folder of images or a video for each", tmp_path / "absent")
    refused(
        "is of the backbone b; got c", extractor=EXTRACTOR._replace(fingerprint="c")
    )
    wide = save_model(
        tmp_path / "wide.safetensors", WeightedFusion(9, "average"), {}, backbone=""
    )
    refused("needs embeddings of 9 channels; brightness gives 6", file=wide)
    model = tiny_model(embed_dim=D)
    variables = draw_variables(model, rng)
    caface = save_model(tmp_path / "c.safetensors", model, variables, backbone="")
    taps = EXTRACTOR._replace(
        extract=lambda v, x: Features(_extract(v, x)[0], jnp.ones((len(x), 3, 2)))
    )
    refused("of other maps than the 3 channels that bri", extractor=taps, file=caface)
    (people / "dora").mkdir()
    refused("dora must hold photos .*; got none")
    Image.new("RGB", (SIZE, 40)).save(people / "dora" / "tall.png")
    refused("must be aligned, 32 x 32 pixels; got 40 x 32 in .*tall.png")
    (people / "dora" / "tall.png").write_bytes(b"not a picture")
    refused("dora/tall.png cannot be read: decode_rgb: the image must be a whole")
    (people / "aaron.mp4").write_bytes(b"not a video")
    refused("aaron.mp4 cannot be read: no frame can be decoded")
    assert not list(output.glob("*.partial"))
