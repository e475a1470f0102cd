"""Networks that come with the package need no file."""

import numpy as np
import pytest

from kprpe_jax import packed_networks
from kprpe_jax.commands.main import main
from kprpe_jax.packed_networks import PACKED, packed_file
from kprpe_jax.recognizers import load_recognizer


def test_the_folder_holds_what_is_named():
    files = {path.stem for path in packed_networks.FOLDER.iterdir()}
    assert files == set(PACKED)


@pytest.mark.parametrize("name", PACKED)
def test_it_loads_by_its_name_and_reads_keypoints(name, rng):
    assert packed_file(name).stat().st_size < 3 * 2**20
    recognizer = load_recognizer(name)
    assert recognizer.name == name
    assert recognizer.license == packed_networks.LICENSE
    images = rng.uniform(-1, 1, (2, *recognizer.image_size, 3)).astype(np.float32)
    points = rng.uniform(0.2, 0.8, (2, 5, 2)).astype(np.float32)
    embeddings = np.asarray(recognizer.embed(images, points))
    assert embeddings.shape == (2, recognizer.module.output_dim)
    assert np.isfinite(embeddings).all()
    others = np.asarray(recognizer.embed(images, points[::-1]))
    assert recognizer.uses_keypoints == (np.abs(others - embeddings).max() > 1e-3)


@pytest.mark.parametrize("name", PACKED)
def test_its_card_and_export(name, tmp_path, capsys):
    main(["models", name])
    shown = capsys.readouterr().out
    assert packed_networks.LICENSE in shown
    assert "synthetic" in shown
    output = tmp_path / "tiny.safetensors"
    main(["export", f"--model={name}", f"--output={output}"])
    assert load_recognizer(str(output)).fingerprint == load_recognizer(name).fingerprint
