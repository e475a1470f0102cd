"""Heads that start at keypoint-anchored locations."""

import jax
import numpy as np
import pytest

from kprpe_jax.position.anchored_init import location_weights, spread_locations
from kprpe_jax.position.buckets import patch_centers
from kprpe_jax.position.encoding import PositionBias, position_bias

WIDTH = 0.2
# A ratio at which every offset of the grid has a bucket of its own.
EXACT = dict(grid=(3, 4), ratio=8.0)
TRIANGLE = ((0.2, 0.3), (0.7, 0.25), (0.5, 0.8))
FIVE = ((0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8))


def attention(module, keypoints):
    """Attention of the heads before training, [L, B or 1, H', N, N]."""
    params = module.init(jax.random.key(0), keypoints)
    tables = module.apply(params, keypoints)
    layers = [tables.layer(n) for n in range(module.num_layers)]
    bias = np.stack([position_bias(layer, module.buckets) for layer in layers])
    exponent = np.exp(bias - bias.max(-1, keepdims=True))
    return exponent / exponent.sum(-1, keepdims=True)


def gaussian(centers, keypoint):
    weights = np.exp(-((centers - keypoint) ** 2).sum(-1) / (2 * WIDTH**2))
    return weights / weights.sum()


def places_by_hand(template, keypoints, places):
    """Where the best affine map from template to keypoints takes places."""
    ones = np.ones((len(template), 1))
    affine, *_ = np.linalg.lstsq(np.hstack([template, ones]), keypoints, rcond=None)
    return np.hstack([places, np.ones((len(places), 1))]) @ affine


@pytest.mark.parametrize(
    ("template", "position", "method"),
    [
        (FIVE, "kprpe_multihead", "product"),
        (FIVE, "kprpe_relative", "cross"),
        (TRIANGLE, "kprpe_multihead", "cross"),
    ],
)
def test_every_head_is_a_gaussian_around_its_place(position, method, template):
    module = PositionBias(
        position,
        2,
        2,
        4,
        num_keypoints=len(template),
        method=method,
        anchor_width=WIDTH,
        anchor_template=template,
        **EXACT,
    )
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, (2, len(template), 2))
    keypoints = (np.array(template) + noise).astype(np.float32)
    got = attention(module, keypoints)
    centers = patch_centers(module.grid)
    heads = got.shape[2]
    places = spread_locations(2 * heads)
    for row in range(2):
        seen = places_by_hand(template, keypoints[row], places)
        for layer in range(2):
            for head in range(heads):
                expected = gaussian(centers, seen[layer * heads + head])
                for query in range(len(centers)):  # all of them look there
                    np.testing.assert_allclose(
                        got[layer, row, head, query], expected, atol=2e-5
                    )


def test_places_follow_an_affine_map_of_the_keypoints():
    places = spread_locations(16)
    weights = location_weights(np.array(FIVE), places)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-12)
    turn = np.array([[0.8, -0.5], [0.3, 1.1]])
    moved = np.array(FIVE) @ turn.T + [0.1, -0.3]
    np.testing.assert_allclose(weights @ moved, places @ turn.T + [0.1, -0.3])


def test_places_are_spread():
    places = spread_locations(16)
    assert (places >= 0).all()
    assert (places < 1).all()
    np.testing.assert_array_equal(places[0], [0.5, 0.5])
    apart = np.linalg.norm(places[:, None] - places, axis=-1) + np.eye(16)
    assert apart.min() > 0.14  # of random points: 0.03
    assert np.linalg.norm(places[1:] - places[:-1], axis=1).min() > 0.4


@pytest.mark.parametrize("fields", [dict(scale_bias=False), dict(factorized=False)])
def test_the_start_depends_on_neither_scale_nor_form(fields):
    rng = np.random.default_rng(0)
    keypoints = rng.uniform(0, 1, (2, 3, 2)).astype(np.float32)
    common = dict(
        num_keypoints=3, anchor_width=WIDTH, anchor_template=TRIANGLE, **EXACT
    )
    plain, other = (
        attention(PositionBias("kprpe_multihead", 2, 2, 4, **common | more), keypoints)
        for more in ({}, fields)
    )
    np.testing.assert_allclose(other, plain, atol=1e-5)


def test_buckets_of_several_offsets_look_near_the_place():
    module = PositionBias(
        "kprpe_multihead",
        1,
        1,
        4,
        (7, 7),
        num_keypoints=3,
        anchor_width=0.15,
        anchor_template=TRIANGLE,
    )
    centers = patch_centers(module.grid)
    middle = np.linspace(0.1, 0.9, 9)[:, None, None]  # where the one place, 0.5, goes
    keypoints = (np.array(TRIANGLE) - 0.5 + middle).astype(np.float32)
    seen = attention(module, keypoints)[0, :, 0]  # [image, query, key]
    distance = np.linalg.norm(seen @ centers - middle, axis=-1)
    assert distance.max() < 1.6 / 7  # patches


def test_only_the_first_points_of_the_template_are_read():
    fields = dict(num_keypoints=3, anchor_width=WIDTH, **EXACT)
    keypoints = np.array([FIVE[:3]], np.float32)
    three, five = (
        attention(
            PositionBias("kprpe_multihead", 1, 2, 4, anchor_template=t, **fields),
            keypoints,
        )
        for t in (FIVE[:3], FIVE)
    )
    np.testing.assert_array_equal(five, three)


@pytest.mark.parametrize("position", ["rpe", "irpe", "kprpe_absolute", "kprpe_scalar"])
def test_other_forms_start_at_zero(position):
    module = PositionBias(
        position,
        1,
        2,
        4,
        num_keypoints=3,
        anchor_width=WIDTH,
        anchor_template=(),
        **EXACT,
    )
    params = module.init(jax.random.key(0), np.zeros((1, 3, 2), np.float32))
    assert all(not np.any(x) for x in jax.tree.leaves(params))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(hidden_dim=8), "has no anchored initialization"),
        (dict(method="euclidean"), "directions"),
        (dict(anchor_width=-0.1), "positive"),
        (dict(anchor_template=TRIANGLE[:2]), "must have num_keypoints = 3 points"),
        (dict(anchor_template=TRIANGLE, num_keypoints=2), "three or more points"),
        (dict(anchor_template=((0, 0), (1, 1), (2, 2))), "not on a line"),
        (dict(anchor_template=((1, 1), (1, 1), (1, 1))), "not on a line"),
    ],
)
def test_what_cannot_look_at_a_place_is_refused(fields, message):
    common = dict(num_keypoints=3, anchor_width=WIDTH, anchor_template=TRIANGLE)
    fields = dict(position="kprpe_multihead", **common) | fields
    module = PositionBias(num_layers=1, num_heads=1, head_dim=4, grid=(3, 3), **fields)
    keypoints = np.zeros((1, module.num_keypoints, 2), np.float32)
    with pytest.raises(ValueError, match=message):
        module.init(jax.random.key(0), keypoints)
