"""Photos and data sets become features, from the command line down."""

import numpy as np
import pytest
from PIL import Image

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.commands import main as commands
from kprpe_jax.core.input_spec import to_unit_range
from kprpe_jax.data.feature_file import read_feature_file
from kprpe_jax.data.features import read_features, read_origin
from tests.halves import PHOTOS_SIZE, Halves, recognizer
from tests.tasks import synthetic_people

SIZE = synthetic_people.SIZE


@pytest.fixture
def network(monkeypatch):
    """A function from an image size and keypoints to the recognizer of the commands."""

    def use(size, num_keypoints=0):
        found = recognizer().replace(
            module=Halves((size, size)),
            input_spec=recognizer().input_spec._replace(
                image_size=(size, size), num_keypoints=num_keypoints
            ),
        )
        monkeypatch.setattr(
            "kprpe_jax.recognizers.load_recognizer",
            lambda spec, style_maps: found.replace(style_maps=style_maps),
        )
        return found

    return use


def fails(capsys, code, *arguments):
    with pytest.raises(SystemExit) as error:
        commands.main(["embed", "--model=any", *arguments])
    assert error.value.code == code
    told = capsys.readouterr().err
    assert [line[:6] for line in told.splitlines()].count("error:") == 1
    return told


@pytest.fixture
def photos(tmp_path, rng):
    folder = tmp_path / "photos"
    for name in ("anna/1.png", "anna/2.png", "ben_0001.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (PHOTOS_SIZE, PHOTOS_SIZE, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def test_photos_become_a_file(network, photos, tmp_path, capsys):
    found, output = network(PHOTOS_SIZE), tmp_path / "faces.npz"
    given = ["embed", "--model=any", f"--photos={photos}", f"--output={output}"]
    commands.main([*given, "--style", "--patches", "--batch-size=2"])
    told = capsys.readouterr().out
    assert told == f"3 given: 3 used, 0 left out; 3 faces embedded, in {output}\n"
    file = read_feature_file(output)
    assert file.names.tolist() == ["anna/1.png", "anna/2.png", "ben_0001.png"]
    assert file.persons.tolist() == ["anna", "anna", "ben"]
    assert file.counts.tolist() == [1, 1, 1]
    assert file.about["fingerprint"] == found.fingerprint
    assert file.about["license"] == found.license
    images = np.stack([np.asarray(Image.open(photos / name)) for name in file.names])
    want = Recognizer.features(found, to_unit_range(images))
    np.testing.assert_allclose(file.features.embeddings, want.embeddings, atol=1e-6)
    np.testing.assert_allclose(file.features.patches, want.patches, atol=1e-6)
    np.testing.assert_allclose(file.features.style, want.style, atol=1e-6)
    assert file.features.keypoints is None


def test_bad_photos_are_told(network, photos, tmp_path, capsys):
    network(PHOTOS_SIZE)
    (photos / "anna" / "3.png").write_bytes(b"no")
    output = tmp_path / "faces.npz"
    given = f"--photos={photos}", f"--output={output}"
    assert "anna/3.png: " in fails(capsys, 2, *given)
    assert not output.exists()
    commands.main(["embed", "--model=any", *given, "--on-error=skip"])
    told, skipped = capsys.readouterr()
    assert skipped.startswith("left out: anna/3.png: ")
    assert told == (
        "4 given: 3 used, 1 left out (unreadable 1); 3 faces embedded, in "
        f"{output}; left out: listed in {output}.left_out.csv\n"
    )
    for name in ("anna/1.png", "anna/2.png", "ben_0001.png"):
        (photos / name).unlink()
    output.unlink()
    assert "none of 1 given has a usable" in fails(capsys, 1, *given, "--on-error=skip")
    assert not output.exists()
    assert "must end with .npz" in fails(capsys, 2, given[0], "--output=a.txt")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--photos=a",),
        ("--photos=a", "--output=b.npz", "--name=c"),
        ("--dataset=a",),
        ("--dataset=a", "--name=b", "--output=c.npz"),
    ],
)
def test_photos_or_a_data_set(arguments, capsys):
    told = fails(capsys, 2, *arguments)
    assert "give either --photos and --output, or --dataset and --name" in told


@pytest.mark.slow
def test_a_data_set_becomes_features(network, tmp_path, capsys):
    found = network(SIZE)
    (tmp_path / "people").symlink_to(f"{synthetic_people.data_dir()}/people")
    given = ["embed", "--model=any", "--dataset=people", f"--data-dir={tmp_path}"]
    given += ["--batch-size=8"]
    options = ["--identities=2:6", "--max-images=3", "--degraded=2", "--style"]
    commands.main([*given, "--name=f", *options, "--mirror=sum"])
    assert capsys.readouterr().out == (
        "48 given: 12 used, 36 left out (beyond --max-images 4, of other identities "
        "32); f: 12 photos of 4 identities embedded, 2 degraded copies each; in "
        f"{tmp_path}/f/2.0.0; left out: listed in {tmp_path}/f/2.0.0/left_out.csv\n"
    )
    clean, degraded = (read_features(tmp_path, "f", s) for s in ("clean", "degraded"))
    assert clean.labels.tolist() == [2] * 3 + [3] * 3 + [4] * 3 + [5] * 3
    assert degraded.photos.tolist() == np.repeat(np.arange(12), 2).tolist()
    assert clean.features.style.shape == (12, 2, 2)
    assert clean.features.patches is None
    halves = clean.features.style[..., 0]  # the mirror image has them the other way
    both = 2 * (halves + halves[:, ::-1])
    np.testing.assert_allclose(clean.features.embeddings, both, atol=1e-5)
    origin = read_origin(tmp_path, "f")
    assert origin["fingerprint"] == found.fingerprint
    assert origin["input_spec"] == found.input_spec.describe()
    assert (origin["source"], origin["copies"], origin["photos"]) == ("people", 2, 12)
    told = fails(capsys, 2, *given[2:], "--name=f")
    assert "must not exist yet" in told
    told = fails(capsys, 2, *given[2:], "--name=g", "--min-images=9")
    assert (
        "no photo is left: 48 given: 0 used, 48 left out (of people with too few 48)"
        in told
    )


def test_images_that_cannot_be_read(network, tmp_path, monkeypatch, capsys):
    network(SIZE)
    from kprpe_jax.data.importers import check
    from kprpe_jax.data.importers.dataset import write_dataset
    from kprpe_jax.data.importers.image_folder import open_image_folder

    folder = tmp_path / "images" / "anna"
    folder.mkdir(parents=True)
    for name, size in (("1", SIZE), ("2", SIZE), ("3", SIZE + 1)):
        Image.new("RGB", (size, size), "gray").save(folder / f"{name}.png")
    (folder / "0.png").write_bytes(b"no image")
    # What an import would refuse, as a damaged shard holds it.
    monkeypatch.setattr(check, "decode_rgb", lambda _: np.zeros((SIZE, SIZE, 3)))
    source = open_image_folder(tmp_path / "images")
    write_dataset(source, name="bad", data_dir=tmp_path, origin={"kind": "folder"})
    given = "--dataset=bad", f"--data-dir={tmp_path}", "--name=f"
    assert "must be a whole JPEG" in fails(capsys, 2, *given)
    assert not (tmp_path / "f").exists()
    commands.main(["embed", "--model=any", *given, "--on-error=skip"])
    assert capsys.readouterr().out == (
        "4 given: 2 used, 2 left out (unreadable 2); f: 2 photos of 1 identities "
        f"embedded; in {tmp_path}/f/2.0.0; left out: listed in {tmp_path}/f/2.0.0/"
        "left_out.csv\n"
    )


def test_keypoints_that_are_missing(network, tmp_path, capsys):
    network(SIZE, num_keypoints=5)
    from kprpe_jax.data.importers.dataset import write_dataset
    from kprpe_jax.data.importers.image_folder import open_image_folder

    (tmp_path / "images").mkdir()
    synthetic_people.write_images(tmp_path / "images")
    source = open_image_folder(tmp_path / "images")
    write_dataset(source, name="bare", data_dir=tmp_path, origin={"kind": "folder"})
    given = "--dataset=bare", f"--data-dir={tmp_path}", "--name=f"
    told = fails(capsys, 2, *given)
    assert "48 photos have no keypoints, which the recognizer reads" in told
    told = fails(capsys, 2, *given, "--on-error=skip")
    assert (
        "no photo is left: 48 given: 0 used, 48 left out (without keypoints 48)" in told
    )
