import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax import registry
from kprpe_jax.weights import check_weights, export_weights, import_weights

DETECTOR = registry.network("retinaface_mnet025")
ALIGNER = registry.network("dfa_mobilenet025")
SMALL = dict(stem=2, width=8)
MODELS = {
    "detector": DETECTOR.make(**SMALL),
    "aligner": ALIGNER.make(**SMALL, input_size=32, mixer_depth=2),
}


def random_weights(model, rng):
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    variables = jax.tree.map(
        lambda s: rng.normal(size=s.shape).astype(np.float32), shapes
    )
    return variables, export_weights(model, variables)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_round_trip(model, rng):
    variables, weights = random_weights(model, rng)
    again = import_weights(model, {f"net.{k}": v for k, v in weights.items()})
    jax.tree.map(np.testing.assert_array_equal, again, variables)


@pytest.mark.slow
def test_weights_of_the_other_network_are_refused(rng):
    _, weights = random_weights(MODELS["aligner"], rng)
    with pytest.raises(ValueError, match=r"this RetinaFace; surplus: aggregator"):
        check_weights(MODELS["detector"], weights)
    _, weights = random_weights(MODELS["detector"], rng)
    with pytest.raises(ValueError, match=r"DifferentiableAligner; missing: aggregator"):
        check_weights(MODELS["aligner"], weights)


def test_official_choices_can_be_replaced():
    assert ALIGNER.make(align_corners=False).align_corners is False
    assert ALIGNER.make().mixer_input == "decoded"
