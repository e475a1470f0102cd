"""Families of warps on faces whose differences are known."""

import jax
import numpy as np
import pytest

from experiments.balanced_alignment import alignment_families as study
from kprpe_jax.data.synthetic.landmarks import NUM_LANDMARKS


@pytest.fixture(scope="module")
def template():
    rng = np.random.default_rng(3)
    return rng.uniform(-0.6, 0.6, (NUM_LANDMARKS, 2)).astype(np.float32)


def turned(shapes, rng, linear_noise):
    """Shapes [N, S, 2], each moved by a similarity, or by an affine map."""
    count = len(shapes)
    angle = rng.uniform(-0.4, 0.4, count)
    scale = rng.uniform(0.8, 1.2, count)
    a, b = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.stack([np.stack([a, -b], -1), np.stack([b, a], -1)], -2)
    linear = linear + linear_noise * rng.normal(size=linear.shape)
    moved = np.einsum("nij,nsj->nsi", linear, shapes) + rng.normal(
        size=(count, 1, 2), scale=0.1
    )
    return moved.astype(np.float32)


@pytest.mark.slow
def test_each_family_removes_what_it_can_express(template, rng):
    align = study.families(template)
    shapes = np.tile(template, (6, 1, 1))
    similar, sheared = (turned(shapes, rng, noise) for noise in (0, 0.1))

    def error(name, faces):
        return np.abs(jax.jit(align[name])(faces) - template).max()

    assert error("none", similar) > 0.1
    for name in ("similarity", "similarity, 5 points", "affine", "affine, 5 points"):
        assert error(name, similar) < 1e-4
    assert error("similarity", sheared) > 0.02
    assert error("affine", sheared) < 1e-4
    # Affine maps do not bend, so that stiffness does not keep a spline from them.
    assert error("tps 8 x 8, stiffness 1", sheared) < 1e-3


@pytest.mark.slow
def test_strength_grows_with_freedom_and_falls_with_stiffness(template, rng):
    """Faces differ by smooth bends; people are those with the same bend."""
    labels = np.repeat(np.arange(8), 3)
    bend = 0.05 * rng.normal(size=(8, 4, 2))[labels]
    waves = np.stack([f(k * template[:, 0]) for f in (np.sin, np.cos) for k in (2, 4)])
    shapes = template + np.einsum("nkc,ks->nsc", bend, waves)
    faces = turned(shapes, rng, 0)
    results = study.measure(faces.astype(np.float32), labels, template)
    anme = {name: value for name, (value, _) in results.items()}
    assert anme["none"] > anme["similarity"] > anme["affine"]
    assert anme["affine"] > anme["tps 3 x 3"] > anme["tps 4 x 4"] > anme["tps 8 x 8"]
    assert anme["full align"] < 1e-3
    stiff = [anme[f"tps 8 x 8, stiffness {s:g}"] for s in study._STIFFNESS]
    assert stiff == sorted(stiff, reverse=True)
    assert results["similarity"][1] == 1.0  # it leaves the bend, and nothing else
