"""A recognizer of two layers, and photos of people who look like their patterns."""

import io
import pathlib

import flax.linen as nn
import jax
import numpy as np
import pytest
from PIL import Image

from kprpe_jax.backbones.network import Network
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.input_spec import InputSpec

PEOPLE = ("ann", "bob", "cleo")
SIZE = (16, 8)


class TinyNetwork(Network):
    """Two patches of six numbers, an embedding of five."""

    image_size: tuple[int, int] = SIZE
    output_dim: int = 5
    reads_keypoints: bool = False
    patch_map = "patches"
    style_maps = ("patches",)

    def setup(self):
        self.patch = nn.Dense(6)
        self.head = nn.Dense(self.output_dim)

    @property
    def num_keypoints(self):
        return 5 if self.reads_keypoints else 0

    @property
    def grid(self):
        return 2, 1

    def feature_maps(self, images, keypoints=None, *, train=False):
        maps = self.patch(images.reshape(len(images), 2, 1, 8 * 8 * 3))
        if keypoints is not None:
            maps += keypoints.mean((1, 2))[:, None, None, None]
        return {"patches": maps}

    def embed_map(self, patch_map, *, train=False):
        return self.head(patch_map.reshape(len(patch_map), -1))


def tiny_recognizer(name="w", *, keypoints=False, style_maps=()):
    """Weights and fingerprint depend on the name."""
    spec = InputSpec(SIZE, num_keypoints=5 if keypoints else 0)
    module = TinyNetwork(reads_keypoints=keypoints)
    inputs = np.zeros((1, *SIZE, 3), np.float32), np.zeros((1, 5, 2), np.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), *spec.arguments(*inputs))
    rng = np.random.default_rng(len(pathlib.Path(name).name))
    draw = lambda leaf: np.float32(rng.normal(size=leaf.shape))  # noqa: E731
    variables = jax.tree.map(draw, shapes)
    terms = "tiny", "for tests"
    return Recognizer(variables, module, spec, *terms, tuple(style_maps))


@pytest.fixture
def networks(monkeypatch):
    """`--model NAME` loads the tiny recognizer of that name."""
    monkeypatch.setattr("kprpe_jax.recognizers.load_recognizer", tiny_recognizer)


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def photo(person, number):
    """A person's pattern with a little noise, 16 x 12: two columns too many."""
    pattern = np.random.default_rng(100 + person).uniform(30, 220, size=(16, 12, 3))
    noise = np.random.default_rng(1000 * person + number).normal(0, 4, (16, 12, 3))
    return png((pattern + noise).astype(np.uint8))


@pytest.fixture
def folder(tmp_path):
    """Two photos of each person in `photos`, another one in `queries`."""
    for person, name in enumerate(PEOPLE):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(2):
            file = tmp_path / "photos" / name / f"{number}.png"
            file.write_bytes(photo(person, number))
        (tmp_path / "queries").mkdir(exist_ok=True)
        (tmp_path / "queries" / f"{person}.png").write_bytes(photo(person, 7))
    return tmp_path
