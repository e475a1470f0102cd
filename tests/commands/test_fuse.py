"""People in folders and videos become files of features; streams go on another day."""

import sys
import types

import numpy as np
import pytest
from PIL import Image

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.commands import main as commands
from kprpe_jax.core.features import Features
from kprpe_jax.core.input_spec import InputSpec
from kprpe_jax.data.feature_file import read_feature_file
from kprpe_jax.fusion.files import load_stream, make_fusion, save_model
from kprpe_jax.fusion.weighted import WeightedFusion
from kprpe_jax.gallery.fuse import FusedPeople, fuse_people
from tests.fusion.tiny import draw_variables, tiny_model
from tests.thirds import SIZE, D, Thirds


def recognizer(gain=3.0, **fields):
    variables = {"params": {"gain": np.float32(gain)}}
    return Recognizer(
        variables, Thirds(**fields), InputSpec((SIZE, SIZE)), "brightness"
    )


AVERAGE = make_fusion(WeightedFusion(D, "average"), {}, backbone="")


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

    def get(self, what):
        return len(self._left)

    def read(self):
        return (True, self._left.pop(0)) if self._left else (False, None)

    def release(self):
        pass


@pytest.fixture(autouse=True)
def opencv(monkeypatch):
    fake = types.SimpleNamespace(VideoCapture=Video, CAP_PROP_FRAME_COUNT=7)
    monkeypatch.setitem(sys.modules, "cv2", fake)


def unit_embedding(folder, person):
    (embedding,) = read_feature_file(folder / f"{person}.npz").features.embeddings
    return embedding / np.linalg.norm(embedding)


def thirds(person):
    images = [
        np.asarray(Image.open(file)) / 127.5 - 1 for file in sorted(person.iterdir())
    ]
    found = np.stack([image[:: SIZE // 2, 0].ravel() for image in images])
    return found / np.linalg.norm(found, axis=-1, keepdims=True)


def test_everyone_gets_a_file(rng, tmp_path):
    people, output = write_people(tmp_path / "people", rng), tmp_path / "out"
    result = fuse_people(people, output, recognizer(), AVERAGE, batch_size=3)
    assert result == FusedPeople({"anna": 5, "ben": 1, "carl": 4}, 10, [], [])
    want = thirds(people / "anna").mean(0)
    file = read_feature_file(output / "anna.npz")
    np.testing.assert_allclose(
        unit_embedding(output, "anna"), want / np.linalg.norm(want), atol=1e-5
    )
    assert file.persons.tolist() == ["anna"]
    assert file.counts.tolist() == [5]
    assert isinstance(file.features, Features)
    assert file.about["fingerprint"] == recognizer().fingerprint
    assert file.about["input_spec"] == recognizer().input_spec.describe()
    red = unit_embedding(output, "carl")
    assert red[0] > red[1] + 0.1  # RGB, not BGR


def test_a_stream_goes_on_tomorrow(rng, tmp_path):
    """Three days give what one day gives, and other models refuse the state."""
    whole = write_people(tmp_path / "whole", rng)
    days = [tmp_path / f"day{n}" for n in range(3)]
    for n, day in enumerate(days):
        (day / "anna").mkdir(parents=True)
        for file in sorted((whole / "anna").iterdir())[2 * n : 2 * n + 2]:
            (day / "anna" / file.name).write_bytes(file.read_bytes())
    output = tmp_path / "out"
    given = dict(batch_size=2)
    keep, resume = {"keep_state": True}, {"resume": True}
    counts = [
        fuse_people(day, output, recognizer(), AVERAGE, **given, **kept).images
        for day, kept in zip(days, (keep, resume, resume), strict=True)
    ]
    assert counts == [{"anna": 2}, {"anna": 4}, {"anna": 5}]
    own = make_fusion(AVERAGE.model, {}, backbone=recognizer().fingerprint)
    assert load_stream(output / "anna.state.npz", own).images == 5
    fuse_people(whole, tmp_path / "once", recognizer(), AVERAGE, batch_size=2)
    np.testing.assert_allclose(
        unit_embedding(output, "anna"),
        unit_embedding(tmp_path / "once", "anna"),
        atol=1e-5,
    )
    about = [
        read_feature_file(folder / "anna.npz").about
        for folder in (output, tmp_path / "once")
    ]
    assert about[0] == about[1]
    model = tiny_model(embed_dim=D)
    other = make_fusion(model, draw_variables(model, rng), backbone="")
    with pytest.raises(ValueError, match="state of a model with these sizes"):
        fuse_people(days[0], output, recognizer(), other, **given, **resume)
    with pytest.raises(ValueError, match="must be of the model .*; it is of"):
        fuse_people(days[0], output, recognizer(4.0), AVERAGE, **given, **resume)


@pytest.mark.slow
def test_caface_streams_in_batches(rng, tmp_path):
    model = tiny_model(embed_dim=D)
    file = make_fusion(model, draw_variables(model, rng), backbone="")
    people, output = write_people(tmp_path / "people", rng), tmp_path / "out"
    fuse_people(people, output, recognizer(), file, batch_size=4)
    assert np.isfinite(unit_embedding(output, "anna")).all()
    # One image: its own direction.
    (alone,) = thirds(people / "ben")
    np.testing.assert_allclose(unit_embedding(output, "ben"), alone, atol=1e-4)


def test_faults_are_one_sentence(rng, tmp_path):
    people, output = write_people(tmp_path / "people", rng), tmp_path / "out"

    def refused(match, folder=people, of=None, file=AVERAGE):
        with pytest.raises(ValueError, match=match) as error:
            fuse_people(folder, output, of or recognizer(), file)
        assert "\n" not in str(error.value)

    (tmp_path / "nobody").mkdir()
    refused("must hold a folder of photos or a video for each", tmp_path / "nobody")
    refused("must be a photo, a video or a folder of them; got", tmp_path / "absent")
    bound = make_fusion(AVERAGE.model, {}, backbone="b" * 64)
    refused("is of the recognizer b+; got [0-9a-f]+ .bright", file=bound)
    wide = make_fusion(WeightedFusion(9, "average"), {}, backbone="")
    refused("needs embeddings of 9 channels; brightness gives 6", file=wide)
    model = tiny_model(embed_dim=D)
    caface = make_fusion(model, draw_variables(model, rng), backbone="")
    refused(
        "of other maps than the 3 ch.* that bri", of=recognizer(style=3), file=caface
    )
    (people / "dora").mkdir()
    refused("dora has no usable photo of dora; add some")
    Image.new("RGB", (SIZE, 40)).save(people / "dora" / "tall.png")
    refused("dora/tall.png: it must be an aligned face of 32 x 32 pixels; got 40 x 32")
    (people / "dora" / "tall.png").write_bytes(b"not a picture")
    refused("dora/tall.png: .*")
    (people / "aaron.mp4").write_bytes(b"not a video")
    refused("aaron.mp4: no frame can be decoded")
    assert not list(output.glob("*.partial"))
    result = fuse_people(people, output, recognizer(), AVERAGE, on_error="skip")
    assert result.without == ["aaron", "dora"]
    assert [row.key for row in result.left_out] == ["aaron.mp4", "dora/tall.png"]
    assert list(result.images) == ["anna", "ben", "carl"]
    assert not (output / "dora.npz").exists()


@pytest.fixture
def loaded(monkeypatch):
    monkeypatch.setattr(
        "kprpe_jax.recognizers.load_recognizer", lambda spec, style_maps: recognizer()
    )


def test_the_command_tells_everything(loaded, rng, tmp_path, capsys):
    people, output = write_people(tmp_path / "people", rng), tmp_path / "out"
    (people / "dora").mkdir()
    (people / "dora" / "bad.png").write_bytes(b"no")
    given = ["fuse", f"--photos={people}", f"--output={output}", "--model=any"]
    given += ["--fusion=norm", "--batch-size=4"]
    with pytest.raises(SystemExit) as error:
        commands.main(given)
    assert error.value.code == 2
    assert "dora/bad.png: " in capsys.readouterr().err
    commands.main([*given, "--on-error=skip"])
    told, skipped = capsys.readouterr()
    assert skipped.startswith("left out: dora/bad.png: ")
    told = told.splitlines()
    assert told[:3] == ["anna: 5 images", "ben: 1 image", "carl: 4 images"]
    assert told[3] == (
        "11 given: 10 used, 1 left out (unreadable 1); 3 people fused, 1 without a "
        f"usable photo (dora); in {output}; left out: listed in {output}/left_out.csv"
    )


def test_nobody_fused_is_a_run_that_failed(loaded, tmp_path, capsys):
    (tmp_path / "people" / "dora").mkdir(parents=True)
    given = ["fuse", f"--photos={tmp_path / 'people'}", f"--output={tmp_path / 'out'}"]
    given += ["--model=any", "--fusion=average", "--on-error=skip"]
    with pytest.raises(SystemExit) as error:
        commands.main(given)
    assert error.value.code == 1
    assert "nobody was fused: 0 people fused, 1 without" in capsys.readouterr().err


def test_a_fusion_file_names_its_recognizer(loaded, rng, tmp_path, capsys):
    model = tiny_model(embed_dim=D)
    path = tmp_path / "other.safetensors"
    save_model(path, model, draw_variables(model, rng), backbone="c" * 64)
    people = write_people(tmp_path / "people", rng)
    given = ["fuse", f"--photos={people}", f"--output={tmp_path / 'out'}"]
    with pytest.raises(SystemExit) as error:
        commands.main([*given, "--model=any", f"--fusion={path}"])
    assert error.value.code == 2
    assert "the fusion model is of the recognizer cccc" in capsys.readouterr().err
