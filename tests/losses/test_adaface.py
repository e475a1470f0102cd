import jax
import numpy as np
import pytest

from kprpe_jax.core.mesh import batch_sharding, make_mesh
from kprpe_jax.losses.adaface import image_quality, initial_statistics
from tests.quick import quick_jit


@pytest.fixture
def embeddings(rng):
    return rng.normal(size=(16, 5)).astype(np.float32) * rng.uniform(5, 30, (16, 1))


def oracle(norms, mean, std, counted):
    """Quality and statistics in float64, the deviation with n - 1."""
    norms = np.clip(norms.astype(np.float64), 1e-3, 100)
    mean = 0.01 * norms[counted].mean() + 0.99 * mean
    std = 0.01 * norms[counted].std(ddof=1) + 0.99 * std
    return np.clip(0.333 * (norms - mean) / (std + 1e-3), -1, 1), mean, std


@pytest.mark.parametrize("masked", [False, True])
def test_two_steps(embeddings, masked):
    counted = np.arange(16) % 3 > 0 if masked else np.ones(16, bool)
    statistics, mean, std = initial_statistics(), 20.0, 100.0
    for step in (1, 2):
        batch = (step * embeddings).astype(np.float32)
        quality, statistics = image_quality(
            batch, statistics, counted=counted if masked else None
        )
        norms = np.linalg.norm(batch, axis=1)
        want, mean, std = oracle(norms, mean, std, counted)
        np.testing.assert_allclose(quality, want, atol=1e-6)
        np.testing.assert_allclose(statistics, (mean, std), rtol=1e-6)


def test_eight_devices_hold_the_statistics_of_one(embeddings):
    batch = embeddings.astype(np.float32)
    mesh = make_mesh({"data": 2, "fsdp": 2, "class": 2})
    placed = jax.device_put(batch, batch_sharding(mesh))
    run = quick_jit(image_quality)
    quality, statistics = run(placed, initial_statistics())
    one, want = run(batch, initial_statistics())
    np.testing.assert_allclose(quality, one, atol=1e-6)
    np.testing.assert_allclose(statistics, want, rtol=1e-6)
    for value in statistics:
        held = [np.asarray(shard.data) for shard in value.addressable_shards]
        assert len(held) == 8
        assert len({array.tobytes() for array in held}) == 1


def test_statistics_of_too_few_samples_stay():
    start, x = initial_statistics(), np.full((3, 4), 5.0, np.float32)
    for count, moves in ((0, (False, False)), (1, (True, False)), (2, (True, True))):
        quality, after = image_quality(x, start, counted=np.arange(3) < count)
        changed = tuple(bool(a != b) for a, b in zip(after, start, strict=True))
        assert changed == moves
        assert np.isfinite(quality).all()


def test_zero_and_huge_norms_are_finite_and_no_gradient_flows(embeddings):
    batch = embeddings.astype(np.float32)
    batch[0], batch[1] = 0, 1e15
    quality, statistics = image_quality(batch, initial_statistics())
    assert np.isfinite(quality).all()
    assert np.isfinite(np.array(statistics)).all()
    gradient = jax.grad(lambda x: image_quality(x, initial_statistics())[0].sum())(
        batch
    )
    assert not np.asarray(gradient).any()
