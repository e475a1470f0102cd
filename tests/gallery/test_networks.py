"""Real networks: MobileFaceNet on real photos, a run of train.py, a killed command."""

import io
import json
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from kprpe_jax import tasks
from kprpe_jax.core.mesh import make_mesh
from kprpe_jax.gallery import enroll, identify
from kprpe_jax.gallery.encoder import mobilefacenet_encoder, run_encoder
from kprpe_jax.gallery.gallery import Gallery
from kprpe_jax.gallery.photos import (
    aligned_photos,
    detected_photos,
    embed_faces,
    read_photo,
)
from kprpe_jax.tasks import networks
from kprpe_jax.training import loop
from kprpe_jax.training.checkpoint import restore_for_eval
from kprpe_jax.training.state import abstract_state
from tests.tasks import drawn_people

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
WEIGHTS = DATA / "weights" / "mobilefacenet.npz"
DETECTOR = DATA / "weights" / "retinaface_mnet025.npz"
SMALL = DATA / "lfw_small"

pytestmark = pytest.mark.slow
needs_data = pytest.mark.skipif(not WEIGHTS.is_file(), reason=f"no weights: {WEIGHTS}")


@needs_data
def test_masked_people_are_found_among_themselves(tmp_path, capsys):
    """Real photos through detector and aligner; all of the ten are found."""
    network = [f"--gallery={tmp_path / 'small.gallery'}", f"--weights={WEIGHTS}",
               f"--detector={DETECTOR}"]  # fmt: skip
    enroll.main([*network, f"--photos={SMALL / 'lfw-align-128'}"])
    assert "holds 10 photos of 5 people" in capsys.readouterr().out
    output = tmp_path / "answers.json"
    photos = SMALL / "lfw-align-128-masked"
    identify.main([*network, f"--photos={photos}", f"--output={output}"])
    for result in json.loads(output.read_text()):
        assert result["answers"][0]["person"] == Path(result["query"]).parent.name


@needs_data
def test_detected_and_aligned_faces_are_alike():
    """A face aligned by the detector is near the reference aligner's."""
    encoder = mobilefacenet_encoder(WEIGHTS)
    embed = embed_faces(encoder)
    photos = sorted((DATA / "photos" / "images").glob("*.png"))
    detect, ready = detected_photos(encoder, DETECTOR), aligned_photos(encoder)
    found = embed([detect(read_photo(str(path))) for path in photos])
    folder = DATA / "photos" / "aligned_images"
    known = embed([ready(read_photo(str(folder / path.name))) for path in photos])
    units = [x.embeddings / np.linalg.norm(x.embeddings, axis=1, keepdims=True)
             for x in (found, known)]  # fmt: skip
    cosine = units[0] @ units[1].T
    assert (cosine.argmax(1) == np.arange(len(photos))).all()
    assert np.diag(cosine).min() > 0.6
    black = io.BytesIO()
    Image.new("RGB", (60, 50)).save(black, "PNG")
    reason = "no face was found in it; give a photo that shows one"
    assert detect(black.getvalue()) == reason


@needs_data
def test_a_killed_enrollment_goes_on(tmp_path):
    """The command itself, killed by the system after its first batch is on the disk."""
    with tarfile.open(DATA / "lfw" / "lfw_df_aligned112.tar.gz") as archive:
        for _ in range(200):
            archive.extract(archive.next(), tmp_path / "photos", filter="data")
    count = len(list((tmp_path / "photos").glob("*/*.jpg")))
    path = tmp_path / "people.gallery"
    command = [sys.executable, "-m", "kprpe_jax.gallery.enroll",
               f"--gallery={path}", f"--photos={tmp_path / 'photos'}",
               f"--weights={WEIGHTS}"]  # fmt: skip
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
        if path.exists() and photos_in(path) > 0:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = photos_in(path)
    assert there % enroll.BATCH == 0
    assert 0 < there < count
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{count - there} photos added, {there} were there" in done.stdout
    assert photos_in(path) == count


def photos_in(path):
    try:
        with Gallery(path) as gallery:
            return len(gallery)
    except ValueError:  # not yet made
        return 0


@pytest.mark.parametrize(
    ("backbone", "fields"),
    [
        ("vit", None),
        ("iresnet", {"stage_sizes": (1, 1, 1, 1), "image_size": (32, 32)}),
        ("mobilefacenet", {"image_size": (32, 16)}),
    ],
)
def test_a_run_is_an_encoder(tmp_path, backbone, fields):
    config = drawn_people.make_config(steps=1)
    if fields is not None:
        with config.unlocked():
            config.backbone = backbone
            del config.model
            config.model = dict(fields, output_dim=8, dtype="float32")
    loop.train(config, tmp_path)
    encoder = run_encoder(config, tmp_path, checkpoint="last")
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, size=(2, 32, 32, 3)).astype(np.float32)
    keypoints = rng.random((2, 5, 2)).astype(np.float32)
    margin = (32 - encoder.image_size[1]) // 2  # MobileFaceNet reads the middle
    cut = images[:, :, margin : 32 - margin]
    faces = jax.jit(encoder.embed)(cut, keypoints)
    assert faces.patches.shape[:2] == (2, encoder.grid[0] * encoder.grid[1])
    # The evaluators' way: the task, its state, its backbone.
    mesh = make_mesh({"data": 1, "fsdp": 1, "class": 1}, jax.devices()[:1])
    state = restore_for_eval(
        tmp_path, "last", abstract_state(tasks.build(config, mesh), mesh), config
    )
    model = networks.make_network(config, mesh)
    read = networks.input_spec(config, model).arguments
    variables = {"params": state.params["backbone"], **state.collections}
    variables.pop("embedding_norms", None)
    want = model.apply(variables, *read(images, keypoints))
    np.testing.assert_allclose(faces.embeddings, want, atol=1e-5)
    with pytest.raises(ValueError, match="has no 7; ask for best, last or one of"):
        run_encoder(config, tmp_path, checkpoint=7)
