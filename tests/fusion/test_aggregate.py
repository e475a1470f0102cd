import jax
import numpy as np
import pytest

from kprpe_jax.fusion.aggregate import (
    AggregationNetwork,
    assignment_entropy,
    image_weights,
)
from kprpe_jax.fusion.state import Clusters

SETS, M, N, D, WIDTH = 2, 3, 4, 6, 5


@pytest.mark.slow
@pytest.mark.parametrize("per_channel", [True, False])
def test_result_is_a_convex_combination(rng, per_channel):
    """Eq. 6: f = sum_M P * F', P >= 0 of sum 1, so channels stay between clusters."""
    clusters = Clusters(
        rng.normal(size=(SETS, M, D)).astype(np.float32),
        rng.normal(size=(SETS, M, WIDTH)).astype(np.float32),
    )
    centers = rng.normal(size=(M, WIDTH)).astype(np.float32)
    model = AggregationNetwork(per_channel=per_channel)
    variables = model.init(jax.random.key(0), clusters, centers)
    shaken = jax.tree.map(lambda x: x + rng.normal(0, 0.5, x.shape), variables)
    fused, importance = model.apply(shaken, clusters, centers)
    assert importance.shape == (SETS, M, D if per_channel else 1)
    np.testing.assert_allclose(importance.sum(1), 1.0, rtol=1e-5)
    want = (np.asarray(importance) * clusters.features).sum(1)
    np.testing.assert_allclose(fused, want, rtol=1e-5, atol=1e-6)
    assert np.ptp(importance, axis=1).max() > 0.05


def test_image_weights_equal_oracle(rng):
    assignment = rng.dirichlet(np.ones(M), (SETS, N)).transpose(0, 2, 1)
    assignment[0, :, 3], assignment[1] = 0.0, 0.0  # padding, a set without images
    importance = rng.dirichlet(np.ones(M), (SETS, D)).transpose(0, 2, 1)
    for rows in ("as_assigned", "normalized"):
        got = image_weights(assignment, importance, rows=rows)
        want = np.zeros(N)
        for j in range(M):
            row = assignment[0, j]
            row = row / row.sum() if rows == "normalized" else row
            for i in range(N):
                want[i] += row[i] * sum(importance[0, j]) / D
        np.testing.assert_allclose(got[0], want / want.sum(), rtol=1e-5)
        assert (np.asarray(got[1]) == 0).all()
    with pytest.raises(ValueError, match="unknown rows 'both'; use as_assigned or"):
        image_weights(assignment, importance, rows="both")


def test_entropy_is_that_of_each_clusters_shares(rng):
    assignment = rng.dirichlet(np.ones(3), (2, 5)).transpose(0, 2, 1)
    shares = assignment / assignment.sum(-1, keepdims=True)
    want = -(shares * np.log(shares)).sum(-1).mean(-1)
    np.testing.assert_allclose(
        assignment_entropy(assignment.astype(np.float32)), want, rtol=1e-5
    )
    even = np.full((1, 3, 8), 1 / 3, np.float32)
    np.testing.assert_allclose(assignment_entropy(even), np.log(8), rtol=1e-6)
    alone = np.eye(3, dtype=np.float32)[None]  # one image in each cluster
    assert assignment_entropy(alone) == 0
    assert assignment_entropy(np.zeros((1, 3, 4), np.float32)) == 0
