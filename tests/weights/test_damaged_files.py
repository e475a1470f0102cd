"""Real files of weights with random damage: one sentence, or numbers."""

import pathlib
import sys

import numpy as np
import pytest

from kprpe_jax.weights.state_dict import load_state_dict

FILES = pathlib.Path(__file__).parents[1] / "fixtures"
CHANGES = 150


def damage(data, rng):
    """Change a few bytes, cut some out, or put some in."""
    kind, at = rng.integers(3), rng.integers(len(data) - 20)
    if kind == 0:
        places = rng.integers(0, len(data), rng.integers(1, 6))
        data = data.copy()
        data[places] = rng.integers(0, 256, len(places))
        return data
    more = rng.integers(0, 256, rng.integers(1, 9)).astype(np.uint8)
    kept = data[at + rng.integers(1, 20) :] if kind == 1 else data[at:]
    return np.concatenate([data[:at], kept] if kind == 1 else [data[:at], more, kept])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "onnx/mbf_folded.onnx", "onnx/insightface_unfolded.onnx", "torch/old.pt",
        "onnx/cvlface_folded.onnx", "torch/plain.pt", "torch/lightning.ckpt",
        "onnx/insightface.npz",
    ],
)  # fmt: skip
def test_damage_is_told_or_harmless(name, tmp_path, monkeypatch, rng):
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    data = np.frombuffer((FILES / name).read_bytes(), np.uint8)
    path = (tmp_path / "w").with_suffix(pathlib.Path(name).suffix)
    refused = 0
    for _ in range(CHANGES):
        path.write_bytes(damage(data, rng).tobytes())
        try:
            arrays = load_state_dict(path)
        except ValueError as error:
            refused += 1
            assert len(str(error)) < 1500  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert all(isinstance(x, np.ndarray) for x in arrays.values())
    assert refused
