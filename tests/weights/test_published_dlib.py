"""dlib's published network, with its installed weights, says what dlib says."""

import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.core.input_spec import to_unit_range
from kprpe_jax.gallery.thresholds import measured_threshold
from kprpe_jax.geometry import affine
from kprpe_jax.geometry.point_fits import similarity_matrix
from kprpe_jax.geometry.sampling import warp_affine
from kprpe_jax.weights.installed import installed_file
from kprpe_jax.weights.published import published_recognizer
from tests.lfw_frames import FRAMES, read_frames

WANT = pathlib.Path(__file__).parents[1] / "fixtures" / "packages" / "dlib.npz"

pytestmark = pytest.mark.skipif(not FRAMES.is_file(), reason=f"no photos at {FRAMES}")


@pytest.fixture(scope="module")
def want():
    return np.load(WANT)


@pytest.fixture(scope="module")
def photos(want):
    """uint8 [4, 250, 250, 3]."""
    return np.stack([np.asarray(photo) for photo in read_frames(want["names"])])


def test_chips_are_those_of_dlib(photos, want):
    """From the corners of its chips: within a level, in means of 10 x 10 pixels."""
    ends = np.array([[0.5, 0.5], [149.5, 0.5], [0.5, 149.5]])
    matrices = np.stack([similarity_matrix(x + 0.5, ends) for x in want["corners"]])
    inverse = affine.invert(jnp.asarray(matrices, jnp.float32))
    chips = warp_affine(jnp.float32(photos), inverse, out_size=(150, 150))
    means = np.asarray(chips).reshape(4, 15, 10, 15, 10, 3).mean((2, 4))
    assert np.abs(means - want["chips"]).max() < 1


@pytest.mark.slow
def test_embeddings_are_those_of_dlib(photos, want):
    path = installed_file("dlib_resnet_v1")
    if path is None:
        pytest.skip("the package face-recognition-models is not installed")
    recognizer = published_recognizer("dlib_resnet_v1", path)
    middles = to_unit_range(photos[:, 50:200, 50:200])
    got = recognizer.embed(jnp.asarray(middles))
    np.testing.assert_allclose(got, want["middles"], atol=1e-4)
    assert measured_threshold(recognizer).threshold == 0.9263
