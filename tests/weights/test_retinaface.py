import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.weights.retinaface import (
    check_weights,
    export_weights,
    import_weights,
    official_aligner,
    official_retinaface,
)

SMALL = dict(stem=2, width=8)
MODELS = {
    "detector": official_retinaface(**SMALL),
    "aligner": official_aligner(**SMALL, input_size=32, mixer_depth=2),
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


def test_weights_of_the_other_network_are_refused(rng):
    _, weights = random_weights(MODELS["aligner"], rng)
    with pytest.raises(ValueError, match=r"this RetinaFace; surplus: aggregator"):
        check_weights(MODELS["detector"], weights)
    _, weights = random_weights(MODELS["detector"], rng)
    with pytest.raises(ValueError, match=r"DifferentiableAligner; missing: aggregator"):
        check_weights(MODELS["aligner"], weights)


def test_official_choices_can_be_replaced():
    assert official_aligner(align_corners=False).align_corners is False
    assert official_aligner().mixer_input == "decoded"
