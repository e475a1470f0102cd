import math

import jax
import numpy as np
import pytest

from kprpe_jax.fusion.norm_embedding import (
    NormEmbedding,
    quantize_norms,
    sinusoid_table,
)


def test_rounding():
    """The paper's floor and the official truncation differ below 0 only."""
    values = np.float32([-9, -3, -0.25, -0.05, 0, 0.05, 0.25, 2.999, 3, 9])
    floor = [-30, -30, -3, -1, 0, 0, 2, 29, 30, 30]
    truncated = [-30, -30, -2, 0, 0, 0, 2, 29, 30, 30]
    np.testing.assert_array_equal(quantize_norms(values), floor)
    np.testing.assert_array_equal(
        quantize_norms(values, rounding="toward_zero"), truncated
    )
    with pytest.raises(ValueError, match="unknown rounding 'nearest'; use one of"):
        quantize_norms(values, rounding="nearest")


def vector(position, dim):
    """Supp. B, Eq. 2, number by number."""
    return [
        (math.cos if c % 2 else math.sin)(position / 10000 ** ((c - c % 2) / dim))
        for c in range(dim)
    ]


def test_table_equals_oracle():
    positions = np.array([-30, -1, 0, 7, 60])
    want = [vector(position, 6) for position in positions]
    np.testing.assert_allclose(sinusoid_table(positions, 6), want, atol=1e-6)


@pytest.mark.parametrize(("positions", "first"), [("signed", 0), ("from_zero", 30)])
def test_embedding_and_running_statistics(rng, positions, first):
    embeddings = rng.normal(size=(2, 5, 3)).astype(np.float32)
    mask = np.arange(5) < np.array([[5], [3]])
    model = NormEmbedding(6, positions=positions)
    variables = model.init(jax.random.key(0), embeddings, mask, train=False)
    assert "params" not in variables  # the paper's form learns nothing
    norms = np.linalg.norm(embeddings.astype(np.float64), axis=-1)
    got, after = model.apply(
        variables, embeddings, mask, train=True, mutable=["batch_stats"]
    )
    seen = norms[mask]
    scaled = (norms - seen.mean()) / np.sqrt(seen.var() + 1e-5)
    integers = np.floor(10 * np.clip(scaled, -3, 3)).astype(int)
    for place in np.argwhere(mask):
        want = vector(integers[tuple(place)] + first, 6)
        np.testing.assert_allclose(got[tuple(place)], want, atol=1e-5)
    stats = after["batch_stats"]["norm"]
    np.testing.assert_allclose(stats["mean"], 0.1 * seen.mean(), rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * seen.var(ddof=1), rtol=1e-5)


def test_odd_dim_is_described(rng):
    with pytest.raises(ValueError, match="dim even; got 'signed' and 5"):
        NormEmbedding(5).init(
            jax.random.key(0), np.ones((1, 1, 3)), np.ones((1, 1), bool), train=False
        )
