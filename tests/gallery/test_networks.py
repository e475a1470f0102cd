"""Real networks: MobileFaceNet on real photos, runs of train.py, a killed command."""

import json
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kprpe_jax.commands.main import main
from kprpe_jax.configs import pair_matching
from kprpe_jax.core.features import concatenate
from kprpe_jax.data.features import write_features
from kprpe_jax.gallery import enroll as library
from kprpe_jax.gallery.gallery import Gallery
from kprpe_jax.gallery.header import describe_gallery
from kprpe_jax.gallery.photos import embed_photos, list_photos
from kprpe_jax.recognizers import load_detector, load_matcher, load_recognizer
from kprpe_jax.training import loop
from tests.commands.test_explain import page_of
from tests.gallery.test_explain_in_browser import write_people
from tests.tasks import synthetic_people

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
WEIGHTS = DATA / "weights" / "mobilefacenet.npz"
DETECTOR = DATA / "weights" / "retinaface_mnet025.npz"
SMALL = DATA / "lfw_small"
MODEL = f"mobilefacenet:{WEIGHTS}"

pytestmark = pytest.mark.slow
needs_data = pytest.mark.skipif(not WEIGHTS.is_file(), reason=f"no weights: {WEIGHTS}")


@needs_data
def test_masked_people_are_found_among_themselves(tmp_path, capsys):
    """Real photos through detector and aligner; all of the ten are found."""
    network = [f"--gallery={tmp_path / 'small.gallery'}", f"--model={MODEL}",
               f"--detector=retinaface_mnet025:{DETECTOR}"]  # fmt: skip
    main(["enroll", *network, f"--photos={SMALL / 'lfw-align-128'}"])
    assert "holds 10 photos of 5 people" in capsys.readouterr().out
    output = tmp_path / "answers.json"
    photos = SMALL / "lfw-align-128-masked"
    main(["identify", *network, f"--photos={photos}", f"--output={output}"])
    for record in json.loads(output.read_text()):
        assert record["ranking"][0]["person"] == Path(record["photo"]).parent.name
        left, top, right, bottom = record["box"]
        assert left < right
        assert top < bottom
        assert record["threshold"] == 0.3782


@needs_data
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turned_photos_are_turned_back(tmp_path, turns):
    """Real photos on their side and on their head; noise is nobody."""
    network = [f"--gallery={tmp_path / 'small.gallery'}", f"--model={MODEL}",
               f"--detector=retinaface_mnet025:{DETECTOR}"]  # fmt: skip
    main(["enroll", *network, f"--photos={SMALL / 'lfw-align-128'}"])
    noise = np.random.default_rng(turns).integers(0, 256, (128, 128, 3), np.uint8)
    for file in (SMALL / "lfw-align-128").glob("*/*.jpg"):
        path = tmp_path / "turned" / file.parent.name / f"{file.stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rot90(Image.open(file), turns)).save(path)
    Image.fromarray(noise).save(tmp_path / "turned" / "noise.png")
    output = tmp_path / "answers.json"
    photos = f"--photos={tmp_path / 'turned'}"
    main(["identify", *network, photos, f"--output={output}"])
    *records, last = json.loads(output.read_text())
    assert len(records) == 10
    for record in records:
        assert record["person"] == Path(record["photo"]).parent.name
        assert record["notes"] == [f"turned by {360 - 90 * turns} degrees"]
    assert last["person"] is None
    main(["identify", *network, photos, f"--output={output}", "--probe", "folder"])
    noise, *folders = json.loads(output.read_text())
    assert noise["person"] is None
    assert len(folders) == 5
    for record in folders:
        note = f"2 photos: turned by {360 - 90 * turns} degrees"
        assert record["notes"] == [note]
        assert record["person"] == record["photo"].split("/")[-1]


@needs_data
def test_detected_and_aligned_faces_are_alike(tmp_path):
    """A face aligned by the detector is near the reference aligner's."""
    recognizer = load_recognizer(MODEL)
    detector = load_detector(f"retinaface_mnet025:{DETECTOR}")
    images = DATA / "photos" / "images"
    names = {path.name for path in images.glob("*.png")}

    def embeddings(folder, detector):
        files = [file for file in list_photos(folder) if file.name in names]
        embedded = embed_photos(files, recognizer, detector, faces="largest")
        parts = [photo.features for photo in embedded if photo.features is not None]
        found = concatenate(parts).embeddings
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    found = embeddings(images, detector)
    known = embeddings(DATA / "photos" / "aligned_images", None)
    cosine = found @ known.T
    assert (cosine.argmax(1) == np.arange(len(found))).all()
    assert np.diag(cosine).min() > 0.6
    Image.new("RGB", (60, 50)).save(tmp_path / "black.png")
    (black,) = embed_photos(list_photos(tmp_path), recognizer, detector)
    assert black.features is None
    assert black.faces.reasons == ["no face was detected"]


@needs_data
def test_a_killed_enrollment_goes_on(tmp_path):
    """The command itself, killed by the system after its first batch is on the disk."""
    with tarfile.open(DATA / "lfw" / "lfw_df_aligned112.tar.gz") as archive:
        for _ in range(200):
            archive.extract(archive.next(), tmp_path / "photos", filter="data")
    count = len(list((tmp_path / "photos").glob("*/*.jpg")))
    path = tmp_path / "people.gallery"
    command = [sys.executable, "-m", "kprpe_jax", "enroll",
               f"--gallery={path}", f"--photos={tmp_path / 'photos'}",
               f"--model={MODEL}"]  # fmt: skip
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
        if path.exists() and photos_in(path) > 0:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = photos_in(path)
    assert there % library.BATCH == 0
    assert 0 < there < count
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{count - there} added, {there} enrolled before" in done.stdout
    assert photos_in(path) == count


def photos_in(path):
    try:
        with Gallery(path) as gallery:
            return len(gallery)
    except ValueError:  # not yet made
        return 0


@pytest.mark.parametrize("keypoints", [False, True])
def test_a_run_enrolls(tmp_path, keypoints):
    """A ViT of a run, with and without the keypoint bias."""
    config = synthetic_people.make_config(steps=1)
    if not keypoints:
        config.update_from_flattened_dict({"model.position": "none"})
    loop.train(config, tmp_path / "run")
    recognizer = load_recognizer(str(tmp_path / "run@last"))
    assert recognizer.uses_keypoints == keypoints
    rng = np.random.default_rng(0)
    height, width = recognizer.image_size
    (tmp_path / "photos").mkdir()
    for name in "abc":
        image = rng.integers(0, 255, (height, width, 3), np.uint8)
        Image.fromarray(image).save(tmp_path / "photos" / f"{name}.png")
    path = tmp_path / "people.gallery"
    with Gallery(path, create=describe_gallery(recognizer)) as gallery:
        library.enroll(gallery, tmp_path / "photos", recognizer)
        assert gallery.people() == {"a": 1, "b": 1, "c": 1}
        rows, channels = gallery.shapes[0]
        assert rows == recognizer.grid[0] * recognizer.grid[1]
        assert channels == config.model.width


@needs_data
def test_a_run_on_patches_ranks_a_gallery(tmp_path, capsys):
    """Patches, training, enrollment and both commands, with real weights."""
    write_people(tmp_path)
    recognizer = load_recognizer(MODEL)
    files = list_photos(tmp_path / "people")
    parts = [photo.features for photo in embed_photos(files, recognizer)]
    features = concatenate(parts)
    rows = [
        dict(
            patches=patch.astype(np.float16),
            embedding=embedding,
            label=at // 2,
            photo=at,
        )
        for at, (patch, embedding) in enumerate(
            zip(features.patches, features.embeddings, strict=True)
        )
    ]
    write_features(
        {"clean": iter(rows)},
        name="p",
        data_dir=tmp_path,
        shapes={"patches": (42, 512), "embedding": (128,)},
        origin={},
    )
    config = pair_matching.get_config()
    config.update_from_flattened_dict(
        {
            "steps": 2,
            "optimizer.warmup": 1.0,
            "data.dir": str(tmp_path),
            "data.name": "p",
            "data.train_identities": (),
            "data.num_classes": 8,
            "data.batch_size": 8,
            "model.mlp_dim": 16,
            "model.output_dim": 16,
            "evals.in_training": (),
            "evals.pairs.identities": (),
            "evals.pairs.count": 10,
            "checkpoint.every_steps": 2,
        }  # fmt: skip
    )
    run = tmp_path / "run"
    loop.train(config.lock(), run)

    options = [f"--gallery={tmp_path / 'people.gallery'}", f"--model={MODEL}"]
    main(["enroll", *options, f"--photos={tmp_path / 'people'}"])
    query = next((tmp_path / "queries").iterdir())
    options += [f"--photos={query}", f"--matcher={run}@last", "--alpha=1"]
    page, output = tmp_path / "why.html", tmp_path / "answers.json"
    main(["identify", *options, f"--output={output}", "--candidates=7"])
    photos = f"--gallery-photos={tmp_path / 'people'}"
    main(["explain", *options, f"--page={page}", photos, "--candidates=7"])
    assert "1 face explained" in capsys.readouterr().out
    (record,) = json.loads(output.read_text())
    with Gallery(tmp_path / "people.gallery") as gallery:
        contents = gallery.read()
        (asked,) = embed_photos(list_photos(query), recognizer)
        rows = np.arange(len(contents.photos))[None]
        matcher = load_matcher(f"{run}@last")
        want = matcher.score(asked.features, contents.features, rows)[0]
    best = {}
    for person, score in zip(contents.people, want, strict=True):
        best[person] = max(score, best.get(person, -1))
    for row in record["ranking"][:2]:
        assert row["score"] <= best[row["person"]] + 1e-5
    assert np.abs(want - record["score"]).min() < 1e-5
    assert np.ptp(want) > 1e-4
    for shown in page_of(page):
        assert shown["grid"] == [7, 6]
        for candidate in shown["candidates"]:
            assert len(candidate["queryWeights"]) == len(candidate["weights"]) == 42
            assert candidate["image"].startswith("data:image/jpeg")
