"""Margins against their formulas, and their gradients at the ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.losses.margin import (
    GRADIENTS,
    add_angle,
    clip_cosine,
    combined_margin,
    make_margin,
    margin_logits,
)
from kprpe_jax.registry import MARGINS

COSINES = np.array([-1.0, -0.95, -0.5, 0.0, 0.3, 0.9, 1.0], np.float32)


def test_cosface_subtracts():
    margin = make_margin("cosface", margin=0.4)
    np.testing.assert_allclose(margin.target_cosine(COSINES), COSINES - 0.4, atol=1e-6)


def test_cosine_is_left_alone():
    margin = make_margin("cosine", margin=0.4)
    np.testing.assert_array_equal(margin.target_cosine(COSINES), COSINES)


def test_arcface_adds_an_angle_and_stops_at_pi():
    margin = make_margin("arcface", margin=0.5)
    angle = np.minimum(np.arccos(COSINES.astype(np.float64)) + 0.5, np.pi)
    np.testing.assert_allclose(margin.target_cosine(COSINES), np.cos(angle), atol=1e-6)


def test_free_angles_pass_pi():
    target = make_margin("arcface", margin=0.5, angle="free").target_cosine(COSINES)
    angle = np.arccos(COSINES.astype(np.float64)) + 0.5
    np.testing.assert_allclose(target, np.cos(angle), atol=1e-6)
    assert target[0] > target[1]


@pytest.mark.parametrize("quality", [-1.0, -0.3, 0.0, 0.3, 1.0])
def test_adaface(quality):
    """Formula with both ends of the angle; at quality -1 ArcFace, at 0 CosFace."""
    angle = np.arccos(COSINES.astype(np.float64)) - 0.4 * quality
    subtracted = 0.4 + 0.4 * quality
    for name, kept in (("clipped", np.clip(angle, 0, np.pi)), ("free", angle)):
        margin = make_margin("adaface", margin=0.4, angle=name)
        target = margin.target_cosine(COSINES, np.float32(quality))
        np.testing.assert_allclose(target, np.cos(kept) - subtracted, atol=1e-6)
    same_as = {-1.0: "arcface", 0.0: "cosface"}.get(quality)
    if same_as:
        other = make_margin(same_as, margin=0.4).target_cosine(COSINES)
        target = make_margin("adaface", margin=0.4).target_cosine(COSINES, quality)
        np.testing.assert_allclose(target, other, atol=1e-6)


@pytest.mark.parametrize("quality", [-1.0, -0.5, 0.0, 0.5, 1.0])
def test_adaface_never_rewards_a_larger_angle(quality):
    cosines = jnp.linspace(-1, 1, 2001)
    target = make_margin("adaface", margin=0.4).target_cosine(cosines, quality)
    assert (np.diff(target) >= -1e-6).all()


@pytest.mark.parametrize("margins", [(1, 0, 0), (1.35, 0, 0), (1, 0.3, 0.2), (2, 1, 0)])
def test_combined_margin(margins):
    theta = np.minimum(
        margins[0] * np.arccos(COSINES.astype(np.float64)) + margins[1], np.pi
    )
    margin = combined_margin(*margins)
    np.testing.assert_allclose(
        margin.target_cosine(COSINES), np.cos(theta) - margins[2], atol=2e-6
    )
    gradients = jax.vmap(jax.grad(margin.target_cosine))(COSINES)
    assert np.isfinite(gradients).all()


def test_logits_of_target_and_others():
    cosine = jnp.array([[0.5, 0.2, -0.1], [0.5, 0.2, -0.1]])
    is_target = np.array([[True, False, False], [False, False, False]])
    margin = make_margin("cosface", margin=0.4, scale=10.0)
    logits = margin_logits(cosine, is_target, margin)
    np.testing.assert_allclose(logits, [[1, 2, -1], [5, 2, -1]], rtol=1e-5)
    dropped = margin_logits(cosine, is_target, margin._replace(drop_above=0.15))
    np.testing.assert_allclose(dropped, [[1, 0, -1], [0, 0, -1]], rtol=1e-5)


@pytest.mark.parametrize("angle", ["clipped", "linear"])
def test_arcface_never_rewards_a_larger_angle(angle):
    cosines = jnp.linspace(-1, 1, 2001)
    target = make_margin("arcface", margin=0.5, angle=angle).target_cosine(cosines)
    assert (np.diff(target) >= -1e-6).all()


def test_linear_arcface_has_a_slope_beyond_pi():
    margin = make_margin("arcface", margin=0.5, angle="linear")
    theta = np.linspace(0.01, np.pi, 50)
    want = np.cos(theta + 0.5)
    beyond = theta + 0.5 > np.pi
    want[beyond] = np.cos(theta[beyond]) - 0.5 * np.sin(0.5)
    cosines = jnp.float32(np.cos(theta))
    np.testing.assert_allclose(margin.target_cosine(cosines), want, atol=2e-6)
    slopes = jax.vmap(jax.grad(margin.target_cosine))(cosines)
    np.testing.assert_allclose(slopes[beyond], 1.0)


@pytest.mark.parametrize("kind", MARGINS)
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_gradients_are_finite_at_the_ends(kind, gradient):
    margin = make_margin(kind, margin=0.5, gradient=gradient)
    gradients = jax.vmap(jax.grad(margin.target_cosine))(COSINES)
    assert np.isfinite(gradients).all()
    if gradient == "identity":
        np.testing.assert_array_equal(gradients, np.ones_like(COSINES))


def test_exact_arcface_gradient():
    cosine, angle = np.float32(0.3), 0.5
    theta = np.arccos(0.3)
    np.testing.assert_allclose(
        jax.grad(add_angle)(cosine, angle),
        np.sin(theta + angle) / np.sin(theta),
        rtol=1e-5,
    )


def test_clip_passes_the_gradient_where_it_clips():
    cosine = jnp.array([-1.0000001, -1.0, 0.2, 1.0, 1.0000001], jnp.float32)
    assert np.abs(clip_cosine(cosine)).max() <= 1.0
    gradients = jax.vmap(jax.grad(clip_cosine))(cosine)
    np.testing.assert_array_equal(gradients, np.ones(5))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (dict(kind="arc", margin=0.5), "unknown kind 'arc'"),
        (dict(kind="arcface", margin=-0.5), "must not be negative"),
        (dict(kind="cosface", margin=float("nan")), "got nan for cosface"),
        (dict(kind="adaface", margin=5.0), "an angle at most pi; got 5.0 for ada"),
        (dict(kind="arcface", margin=0.5, scale=0.0), "make_margin: scale must be"),
        (dict(kind="arcface", margin=0.5, scale=float("nan")), "got nan"),
        (dict(kind="arcface", margin=0.5, gradient="none"), "unknown gradient 'none'"),
        (dict(kind="arcface", margin=0.5, angle="wide"), "unknown angle 'wide'"),
    ],
)
def test_errors(arguments, match):
    with pytest.raises(ValueError, match=match):
        make_margin(**arguments)


def test_combined_margin_out_of_range():
    with pytest.raises(
        ValueError, match="at least 1, added lie in .* got 0.5, 0.0 and"
    ):
        combined_margin(0.5, 0.0, 0.0)
    with pytest.raises(ValueError, match="angle must be clipped or free; got 'linear'"):
        combined_margin(1, 0.5, 0.0, angle="linear")
    with pytest.raises(ValueError, match="combined_margin: scale must be positive"):
        combined_margin(1, 0.5, 0.0, scale=-1.0)
