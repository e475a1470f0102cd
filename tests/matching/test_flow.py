import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.matching.flow import (
    Correspondence,
    correspondence,
    flow_picture,
    official_correspondence,
)

FLOW = jnp.array([[0.1, 0.3, 0.0], [0.2, 0.1, 0.15]])  # 2 query, 3 gallery patches


def test_most_of_each_query_patch():
    shown = correspondence(FLOW)
    np.testing.assert_array_equal(shown.index, [1, 0])
    np.testing.assert_allclose(shown.intensity, [1, 0])
    assert (correspondence(jnp.ones((4, 4))).intensity == 1).all()


def test_official_rule_walks_the_gallery():
    shown = official_correspondence(FLOW)
    np.testing.assert_array_equal(shown.index, [1, 0, 1])
    np.testing.assert_allclose(shown.intensity, [0.6, 1, 0], atol=1e-6)
    shown = official_correspondence(FLOW, intensity="max")
    np.testing.assert_allclose(shown.intensity, [0.75, 1, 0.375], atol=1e-6)


def test_picture_of_another_grid(rng):
    """A query of 1 x 2 patches out of a gallery face of 3 x 2."""
    image = rng.uniform(size=(6, 8, 3))
    shown = Correspondence(jnp.array([5, 0]), jnp.array([0.5, 1.0]))
    picture = flow_picture(jnp.asarray(image), shown, grid=(1, 2), source=(3, 2))
    want = np.concatenate([0.5 * image[4:, 4:], image[:2, :4]], 1)
    np.testing.assert_allclose(picture, want, atol=1e-6)


def test_errors():
    with pytest.raises(ValueError, match="unknown intensity 'sum'; use one of"):
        official_correspondence(FLOW, intensity="sum")
    shown = correspondence(FLOW)
    image = jnp.ones((6, 8, 3))
    with pytest.raises(ValueError, match=r"must divide the image .* got \(4, 2\)"):
        flow_picture(image, shown, grid=(1, 2), source=(4, 2))
    with pytest.raises(ValueError, match="one place per index"):
        flow_picture(image, shown, grid=(2, 2), source=(3, 2))
