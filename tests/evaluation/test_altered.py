"""Altered faces: what is covered or moved, by how much, and that seeds decide it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.core.unit import unit
from kprpe_jax.evaluation.adversarial import attack_embeddings
from kprpe_jax.evaluation.altered import ALTERATIONS, crop_faces
from kprpe_jax.geometry.template import ARCFACE_112

COUNT = 6
EYES, MOUTH = (0, 1), (3, 4)


@pytest.fixture(scope="module")
def faces():
    """Noise with the template's points, moved and turned by row."""
    rng = np.random.default_rng(0)
    images = rng.uniform(-0.6, 0.6, size=(COUNT, 112, 112, 3)).astype(np.float32)
    angles = np.linspace(-0.4, 0.4, COUNT)
    points = []
    for angle in angles:
        turn = np.array(
            [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        )
        points.append((ARCFACE_112 - 56) * 0.9 @ turn.T + 56)
    return images, (np.array(points) / 112).astype(np.float32)


@pytest.fixture(scope="module")
def altered(faces):
    return {
        name: jax.device_get(jax.jit(change)(jax.random.key(0), *faces))
        for name, change in ALTERATIONS.items()
    }


def covered_at(images, changed, points):
    """Whether the pixel under each point [B, n, 2] changed."""
    x, y = np.moveaxis(np.floor(points * 112).astype(int), -1, 0)
    differs = np.abs(images - changed).max(-1) > 1e-3
    return differs[np.arange(COUNT)[:, None], y, x]


@pytest.mark.parametrize(
    ("name", "share", "hidden", "seen"),
    [
        ("mask", (0.18, 0.35), (2, *MOUTH), EYES),
        ("sunglasses", (0.1, 0.23), EYES, (2, *MOUTH)),
    ],
)
def test_landmarks_say_what_is_covered(faces, altered, name, share, hidden, seen):
    images, points = faces
    changed, kept = altered[name]
    np.testing.assert_array_equal(kept, points)
    assert covered_at(images, changed, points[:, hidden]).all()
    assert not covered_at(images, changed, points[:, seen]).any()
    part = (np.abs(images - changed).max(-1) > 1e-3).mean((1, 2))
    assert (part > share[0]).all()
    assert (part < share[1]).all()
    assert np.ptp(part) > 0.003  # no two are alike


def test_a_crop_is_a_part_enlarged(faces, altered):
    """Bilinear values of the photo at 78 / 112 of the step, from a whole pixel on."""
    images, points = faces
    changed, moved = altered["crop"]
    side = 78
    corner = (points - moved * side / 112)[:, 0] * 112
    np.testing.assert_allclose(corner, np.round(corner), atol=1e-3)
    assert (corner > -1e-3).all()
    assert (corner < 112 - side + 1e-3).all()
    assert corner.max() > 24  # of 34; all places are sampled
    assert corner.min() < 10
    assert len(np.unique(np.round(corner), axis=0)) == COUNT
    place = (np.arange(112) + 0.5) * side / 112 - 0.5
    for image, crop, (left, top) in zip(images, changed, np.round(corner), strict=True):
        want = image
        for axis, start in ((0, top), (1, left)):
            at = np.clip(place + start, 0, 111)
            low = np.floor(at).astype(int)
            high = np.minimum(low + 1, 111)
            weight = (at - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
            parts = (np.take(want, i, axis) for i in (low, high))
            want = sum(w * x for w, x in zip((1 - weight, weight), parts, strict=True))
        inner = np.s_[1:-1, 1:-1]  # an outermost pixel may fade into black
        np.testing.assert_allclose(crop[inner], want[inner], atol=1e-4)


def test_a_turn_keeps_the_middle(faces, altered):
    images, points = faces
    changed, moved = altered["turn"]
    before, after = (np.linalg.norm(x - 0.5, axis=-1) for x in (points, moved))
    np.testing.assert_allclose(after, before, atol=1e-5)
    cross = (points - 0.5)[:, 0, 0] * (moved - 0.5)[:, 0, 1]
    cross -= (points - 0.5)[:, 0, 1] * (moved - 0.5)[:, 0, 0]
    angle = np.rad2deg(np.arcsin(cross / before[:, 0] ** 2))
    assert (np.abs(angle) <= 30).all()
    assert np.abs(angle).max() > 10
    assert (changed == -1).any()
    assert np.isfinite(changed).all()


@pytest.mark.parametrize("name", ALTERATIONS)
def test_seeds_decide(faces, altered, name):
    again = jax.jit(ALTERATIONS[name])(jax.random.key(0), *faces)
    np.testing.assert_array_equal(again[0], altered[name][0])
    other = jax.jit(ALTERATIONS[name])(jax.random.key(1), *faces)
    assert np.abs(other[0] - altered[name][0]).max() > 0.01
    assert np.abs(altered[name][0]).max() <= 1


def test_a_crop_of_everything_changes_nothing(faces):
    whole = jax.jit(partial(crop_faces, share=1.0))
    changed, moved = whole(jax.random.key(0), *faces)
    np.testing.assert_allclose(changed, faces[0], atol=1e-5)
    np.testing.assert_allclose(moved, faces[1], atol=1e-6)


def test_points_are_needed(faces):
    with pytest.raises(ValueError, match=r"must be \[6, 5, 2\] .* got \(6, 3, 2\)"):
        ALTERATIONS["mask"](jax.random.key(0), faces[0], faces[1][:, :3])


def test_attack_turns_embeddings_within_its_reach(rng):
    images = jnp.asarray(rng.uniform(-1, 1, size=(3, 4, 4, 3)), jnp.float32)
    weights = jnp.asarray(0.1 * rng.normal(size=(48, 5)), jnp.float32)

    def embed(x):
        return jnp.tanh(x.reshape(len(x), -1) @ weights)

    @partial(jax.jit, static_argnames=("epsilon", "step", "iterations"))
    def attack(**options):
        return attack_embeddings(jax.random.key(0), images, embed, **options)

    @jax.jit
    def cosine(changed):
        return (unit(embed(images)) * unit(embed(changed))).sum(-1)

    changed = attack(epsilon=16 / 255)
    assert np.abs(changed - images).max() <= 2 * 16 / 255 + 1e-6
    assert np.abs(changed).max() <= 1
    weak = attack(epsilon=16 / 255, iterations=1)
    assert (cosine(changed) < cosine(weak)).all()
    # A sign step is the steepest within a small box: no random change does as well.
    noise = rng.choice([-1.0, 1.0], size=(200, *images.shape)) * 2 * 16 / 255
    random = jax.lax.map(lambda n: cosine(jnp.clip(images + n, -1, 1)), noise)
    assert (cosine(changed) < random.min(0)).all()
    np.testing.assert_array_equal(changed, attack(epsilon=16 / 255))
    for wrong in (dict(epsilon=0.0), dict(step=0.0), dict(iterations=0)):
        with pytest.raises(
            ValueError, match="must be positive and iterations at least"
        ):
            attack(**wrong)
