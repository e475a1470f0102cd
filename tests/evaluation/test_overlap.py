"""Two small imports that share people and photos."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from kprpe_jax.commands.main import main
from kprpe_jax.evaluation.overlap import find_overlap
from tests.data.importers.sources import encode
from tests.gallery.tiny import tiny_recognizer

SIZE = (16, 8)  # of the tiny recognizer's images


def pattern(number: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    return rng.integers(30, 220, (*SIZE, 3)).astype(np.uint8)


def as_bytes(image: np.ndarray, kind: str = "PNG") -> bytes:
    return encode(image, kind, **({"quality": 99} if kind == "JPEG" else {}))


@pytest.fixture
def data(tmp_path):
    """`train`: four people; `test`: two of them, and copies of photos of the others."""
    webp = io.BytesIO()
    Image.fromarray(pattern(1)).save(webp, "WEBP", lossless=True)
    near = np.clip(pattern(2).astype(int) + 1, 0, 255).astype(np.uint8)
    sets = {
        "train": {
            "Jos\u00e9 Doe/1": as_bytes(pattern(0)), "Ann/1": as_bytes(pattern(1)),
            "Bob/1": as_bytes(pattern(2)), "7/1": as_bytes(pattern(3)),
        },
        "test": {
            "jose_doe/9": as_bytes(pattern(9)), "Cid/1": webp.getvalue(),
            "Dan/1": as_bytes(near), "7/9": as_bytes(pattern(8)),
            "Eve/1": as_bytes(pattern(0)),
        },
    }  # fmt: skip
    for name, images in sets.items():
        for key, image in images.items():
            path = tmp_path / name / f"{key}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image)
    main(["import", "folder", f"--source={tmp_path / 'test'}", "--name=test",
          f"--data-dir={tmp_path / 'data'}"])  # fmt: skip
    return tmp_path


def run(folder, *options):
    main(["import", "folder", f"--source={folder / 'train'}", "--name=train",
          f"--data-dir={folder / 'data'}", "--against", "test", *options])  # fmt: skip


def test_the_report_names_people_and_photos(data, capsys):
    run(data)
    assert capsys.readouterr().out.splitlines()[-1] == (
        "train and test: people of the same name: 1; images in both: 2, the same file "
        "1, the same pixels 1"
    )
    (path,) = (data / "data" / "train").glob("*/import_report.json")
    found = json.loads(path.read_text())["overlap"]["test"]
    assert found["people"] == ["Jos\u00e9 Doe"]
    assert found["files"] == [["Jos\u00e9 Doe/1.png", "Eve/1.png"]]
    assert found["pixels"] == [["Ann/1.png", "Cid/1.png"]]
    assert found["counts"] == {"people": 1, "files": 1, "pixels": 1}


def test_embeddings_find_copies_that_were_changed(data):
    run(data)
    found = find_overlap(
        data / "data", "train", "test", recognizer=tiny_recognizer(), batch_size=8
    )
    assert ("Bob/1.png", "Dan/1.png") in [pair[:2] for pair in found.alike]
    assert all(0.95 <= cosine <= 1.0001 for *_, cosine in found.alike)
    assert found.images == 2 + len(found.alike)


def test_a_model_alone_is_refused(data, capsys):
    with pytest.raises(SystemExit):
        main(["import", "folder", f"--source={data / 'train'}", "--name=other",
              f"--data-dir={data / 'data'}", "--model=x"])  # fmt: skip
    assert "--model: compares images with those of --against" in capsys.readouterr().err
