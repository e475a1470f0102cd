"""Heads that look at keypoints from the start."""

import jax
import numpy as np
import pytest

from kprpe_jax.position.buckets import compute_buckets, patch_centers
from kprpe_jax.position.encoding import PositionBias, position_bias
from kprpe_jax.position.gaze import gaze_tables

WIDTH = 0.2
# A ratio at which every offset of the grid has a bucket of its own.
EXACT = dict(grid=(3, 4), ratio=8.0)


def attention(module, keypoints):
    """What the heads look at before training, [L, B or 1, H', N, N]."""
    params = module.init(jax.random.key(0), keypoints)
    tables = module.apply(params, keypoints)
    layers = [tables.layer(n) for n in range(module.num_layers)]
    bias = np.stack([position_bias(layer, module.buckets) for layer in layers])
    exponent = np.exp(bias - bias.max(-1, keepdims=True))
    return exponent / exponent.sum(-1, keepdims=True)


def gaussian(centers, keypoint):
    weights = np.exp(-((centers - keypoint) ** 2).sum(-1) / (2 * WIDTH**2))
    return weights / weights.sum()


@pytest.mark.parametrize("method", ["product", "cross"])
@pytest.mark.parametrize("position", ["kprpe_multihead", "kprpe_relative"])
def test_every_head_is_a_gaussian_around_one_keypoint(position, method):
    module = PositionBias(
        position, 2, 2, 4, num_keypoints=3, method=method, gaze_width=WIDTH, **EXACT
    )
    rng = np.random.default_rng(0)
    keypoints = rng.uniform(-0.2, 1.2, (2, 3, 2)).astype(np.float32)
    got = attention(module, keypoints)
    centers = patch_centers(module.grid)
    heads = got.shape[2]
    for layer in range(2):
        for head in range(heads):
            turn = (layer * heads + head) % 3
            for row in range(2):
                expected = gaussian(centers, keypoints[row, turn])
                for query in range(len(centers)):  # all of them look there
                    np.testing.assert_allclose(
                        got[layer, row, head, query], expected, atol=1e-5
                    )


@pytest.mark.parametrize("fields", [dict(scale_bias=False), dict(factorized=False)])
def test_the_start_depends_on_neither_scale_nor_form(fields):
    rng = np.random.default_rng(0)
    keypoints = rng.uniform(0, 1, (2, 3, 2)).astype(np.float32)
    common = dict(num_keypoints=3, gaze_width=WIDTH, **EXACT)
    plain, other = (
        attention(PositionBias("kprpe_multihead", 2, 2, 4, **common | more), keypoints)
        for more in ({}, fields)
    )
    np.testing.assert_allclose(other, plain, atol=1e-5)


def test_buckets_of_several_offsets_look_near_the_keypoint():
    module = PositionBias(
        "kprpe_multihead", 1, 1, 4, (7, 7), num_keypoints=1, gaze_width=0.15
    )
    centers = patch_centers(module.grid)
    seen = attention(module, centers[:, None])[0, :, 0]  # [keypoint, query, key]
    distance = np.linalg.norm(seen @ centers - centers[:, None], axis=-1)
    assert distance.max() < 1.6 / 7  # patches


def test_more_keypoints_than_heads_are_spread():
    shape, grid = (9, 2, 2), (3, 3)
    kernel, bias = gaze_tables(shape, compute_buckets(grid), patch_centers(grid), WIDTH)
    assert kernel.shape == (18, 2, 2, 49)
    assert bias.shape == (2, 2, 49)
    read = np.abs(kernel).reshape(9, 2, 4, 49).sum((1, 3))  # [keypoint, head]
    assert [np.flatnonzero(head).tolist() for head in read.T] == [[0], [2], [4], [6]]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(position="rpe"), "gaze_width must be 0"),
        (dict(position="kprpe_absolute"), "gaze_width must be 0"),
        (dict(hidden_dim=8), "gaze_width must be 0"),
        (dict(method="euclidean"), "directions"),
        (dict(gaze_width=-0.1), "positive"),
    ],
)
def test_what_cannot_look_at_a_keypoint_is_refused(fields, message):
    fields = dict(position="kprpe_multihead", gaze_width=WIDTH) | fields
    module = PositionBias(
        num_layers=1, num_heads=1, head_dim=4, grid=(3, 3), num_keypoints=3, **fields
    )
    with pytest.raises(ValueError, match=message):
        module.init(jax.random.key(0), np.zeros((1, 3, 2), np.float32))
