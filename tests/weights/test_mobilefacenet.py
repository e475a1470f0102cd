from pathlib import Path

import jax
import numpy as np
import pytest

from kprpe_jax import registry
from kprpe_jax.weights import export_weights, import_weights

WEIGHTS = (
    Path(__file__).resolve().parents[3]
    / "shared" / "data" / "weights" / "mobilefacenet.npz"
)  # fmt: skip


@pytest.mark.slow
def test_round_trip(rng):
    model = registry.network("mobilefacenet").make()
    images = np.zeros((1, 112, 96, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    variables = jax.tree.map(
        lambda s: rng.normal(size=s.shape).astype(np.float32), shapes
    )
    weights = export_weights(model, variables)
    again = import_weights(model, {f"module.{k}": v for k, v in weights.items()})
    jax.tree.map(np.testing.assert_array_equal, again, variables)
    # Depthwise kernels are the ones whose group has a single input.
    np.testing.assert_array_equal(
        variables["params"]["pool"]["conv"]["kernel"][:, :, 0],
        weights["linear7.conv.weight"][:, 0].transpose(1, 2, 0),
    )
    del weights["linear1.bn.weight"]
    with pytest.raises(ValueError, match="this MobileFaceNet; missing: linear1.bn.wei"):
        import_weights(model, weights)


@pytest.mark.skipif(not WEIGHTS.exists(), reason=f"no weights in {WEIGHTS}")
def test_real_weights_fill_the_network():
    model = registry.network("mobilefacenet").make()
    weights = export_weights(model, import_weights(model, WEIGHTS))
    with np.load(WEIGHTS) as stored:
        counted = [k for k in stored.files if not k.endswith("num_batches_tracked")]
        assert set(weights) == set(counted)
        for name in counted:
            np.testing.assert_array_equal(weights[name], stored[name])
