"""Folders as CVLface publishes them."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from kprpe_jax import registry
from kprpe_jax.recognizers import load_recognizer
from kprpe_jax.weights import export_weights, model_folder
from kprpe_jax.weights.model_folder import find_weights

YAML = "input_size: [3, 112, 112]\ncolor_space: 'RGB'\nname: 'base'\noutput_dim: 512\n"
KEYPOINTS = "rpe_config:\n  method: product\n  num_keypoints: 5\n"


def folder(path, config=YAML + KEYPOINTS, *, weights="model.pt", name="model.yaml"):
    path.mkdir(parents=True, exist_ok=True)
    (path / weights).write_bytes(b"weights")
    (path / name).write_text(config)
    return path


def find(path, name="vit_kprpe_base_multihead"):
    return find_weights(path, name, registry.network(name))


def test_weights_beside_their_config(tmp_path):
    assert find(folder(tmp_path / "a")) == tmp_path / "a" / "model.pt"
    nested = folder(tmp_path / "b" / "pretrained_model", weights="model.safetensors")
    assert find(tmp_path / "b") == nested / "model.safetensors"
    config = json.dumps({"conf": {"name": "ir101", "color_space": "RGB"}})
    path = folder(tmp_path / "c", config, name="config.json")
    assert find(path, "iresnet_ir101") == path / "model.pt"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_kprpe_small_multihead", "size is base, that of .* is small"),
        ("vit_base", "keypoints is 5, that of vit_base is 0"),
        ("mobilefacenet", "size is base, that of mobilefacenet is 1.0"),
    ],
)
def test_a_folder_of_another_network(tmp_path, name, message):
    with pytest.raises(
        ValueError, match=f"model.yaml: is of a network whose {message}"
    ):
        find(folder(tmp_path), name)


def test_another_color_order(tmp_path):
    config = "name: ir50\ncolor_space: RGB\n"
    with pytest.raises(ValueError, match="color order is rgb, that of .* is bgr"):
        find(folder(tmp_path, config), "adaface_ir50")


@pytest.mark.parametrize(
    "config", ["", "a: [", "- 1\n", "!!python/object/apply:os.abort []", "\x00"]
)
def test_configs_that_say_nothing(tmp_path, config):
    with pytest.raises(ValueError, match="must say of which network") as error:
        find(folder(tmp_path, config))
    assert len(str(error.value)) < 1500


def test_files_that_are_missing(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="must hold weights, model.safetensors or"):
        find(tmp_path)
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"must hold a config, model.yaml or config.js"
    ):
        find(tmp_path)
    monkeypatch.setattr(model_folder, "_MOST", 10)
    with pytest.raises(ValueError, match="it is too large"):
        find(folder(tmp_path))


def test_a_recognizer_of_a_folder(tmp_path):
    name = "mobilefacenet"
    module = registry.network(name).make()
    shapes = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 112, 96, 3)))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: np.float32(rng.normal(size=x.shape)), shapes)
    weights = export_weights(module, variables)
    arrays = {f"net.{name}": np.array(x, order="C") for name, x in weights.items()}
    path = folder(tmp_path, "name: '1.0'\ncolor_space: RGB\n")
    (path / "model.pt").unlink()
    save_file(arrays, path / "model.safetensors")
    found = load_recognizer(f"{name}:{path}")
    jax.tree.map(np.testing.assert_array_equal, dict(found.variables), dict(variables))
