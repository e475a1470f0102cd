"""Pictures of assignments, with a recognizer that reads brightness alone."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.cluster_aggregate.assignment_maps import assign
from kprpe_jax.backbones.network import Network
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.features import Features
from kprpe_jax.core.input_spec import InputSpec
from kprpe_jax.fusion.files import FusionFile
from kprpe_jax.fusion.weighted import WeightedFusion
from kprpe_jax.report.assignments import plot_assignments
from tests.fusion.tiny import CHANNELS, D, draw_variables, tiny_model


class Brightness(Network):
    """Embeds the mean brightness; its style is the same in all channels."""

    def features(self, images, keypoints=None, *, train=False, style_maps=()):
        brightness = images.mean((1, 2, 3))[:, None]
        style = jnp.broadcast_to(brightness[..., None], (len(images), CHANNELS, 2))
        return Features(1 + brightness * jnp.arange(D), style=style)


BRIGHTNESS = Recognizer({}, Brightness(), InputSpec((4, 4)), "brightness")


@pytest.mark.slow
def test_shares_and_weights_of_each_image(rng):
    model = tiny_model()
    file = FusionFile(model, draw_variables(model, rng), "", "")
    images = rng.integers(0, 256, (5, 4, 4, 3), np.uint8)
    found = assign(BRIGHTNESS, file, images)
    assert found.assignment.shape == (3, 5)
    np.testing.assert_allclose(found.assignment.sum(0), 1, rtol=1e-5)
    np.testing.assert_allclose(found.importance.sum(), 1, rtol=1e-5)
    for weights in found.weights.values():
        np.testing.assert_allclose(weights.sum(), 1, rtol=1e-5)
    # The demo's weights: rows of A over their sums, weighed by the clusters.
    rows = found.assignment / found.assignment.sum(1, keepdims=True)
    np.testing.assert_allclose(
        found.weights["CAFace"], found.importance @ rows, rtol=1e-4
    )


def test_other_models_have_no_assignments():
    file = FusionFile(WeightedFusion(D), {}, "", "")
    with pytest.raises(ValueError, match="got WeightedFusion, which has no assignmen"):
        assign(BRIGHTNESS, file, np.zeros((1, 4, 4, 3), np.uint8))


def test_a_picture_is_written(rng, tmp_path):
    images = rng.integers(0, 256, (3, 4, 4, 3), np.uint8)
    assignment = rng.dirichlet(np.ones(2), 3).T
    weights = {"CAFace": np.ones(3) / 3}
    path = tmp_path / "map.png"
    plot_assignments(images, assignment, np.array([0.4, 0.6]), weights, path)
    assert path.stat().st_size > 5000
    with pytest.raises(ValueError, match=r"\[N\] for N = 3 images; got \(2, 3\)"):
        plot_assignments(
            images, assignment, np.array([0.4, 0.6]), {"CAFace": np.ones(2)}, path
        )
