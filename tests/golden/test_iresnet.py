"""iResNets against stored outputs of both official codes, in float32.

The cases state how far the official float32 run is from the same in float64, up to
4e-5; the bound is 1e-4, relative to the largest value of each array.
"""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax import registry
from kprpe_jax.backbones.iresnet import VARIANTS, IResNet
from kprpe_jax.weights import import_weights
from tests.golden.golden import assert_close, case_params, load_case
from tests.quick import quick_jit

pytestmark = pytest.mark.golden

BOUND = 1e-4
STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}


def made_weights(meta):
    """The weights of a case, by the rule that its JSON states."""
    rng, layout = np.random.default_rng(meta["weight_seed"]), meta["weights_layout"]
    digest, weights = hashlib.sha256(), {}
    for key, shape in sorted(layout.items()):
        prefix, _, leaf = key.rpartition(".")
        normed = f"{prefix}.running_mean" in layout or f"{prefix}.bias" in layout
        if leaf in ("running_mean", "bias"):
            array = rng.normal(0.0, 0.1, shape)
        elif leaf == "running_var":
            array = rng.uniform(0.5, 1.5, shape)
        elif len(shape) == 1:
            array = rng.uniform(*((0.5, 1.5) if normed else (0.1, 0.4)), shape)
        else:
            deviation = meta["weight_gain"] / np.sqrt(np.prod(shape[1:]))
            array = rng.normal(0.0, deviation, shape)
        weights[key] = array.astype(np.float32)
        digest.update(key.encode() + weights[key].tobytes())
    assert digest.hexdigest() == meta["weights_sha256"]
    return weights


def model_of(options):
    """Our network for the arguments of either official class."""
    if "layers" in options:
        return IResNet(
            tuple(options["layers"]),
            output_dim=options["num_features"],
            **VARIANTS["insightface"],
        )
    return IResNet(
        STAGES[options["num_layers"]],
        image_size=tuple(options["input_size"]),
        output_dim=options["output_dim"],
        squeeze_excite=options["mode"] == "ir_se",
        **VARIANTS["cvlface"],
    )


@pytest.mark.parametrize("case", case_params("iresnet"))
def test_embedding_and_taps(case):
    loaded = load_case(case)
    model = model_of(loaded.options)
    variables = import_weights(model, made_weights(loaded.meta))
    images = jnp.asarray(loaded.arrays["in"]["x"].transpose(0, 2, 3, 1))

    def both(model, images):
        maps = model.feature_maps(images)
        return {**maps, "embedding": model.embed_map(maps["stage4"])}

    outputs = quick_jit(lambda v, x: model.apply(v, x, method=both))(variables, images)
    for name, want in loaded.arrays["out"].items():
        got = np.asarray(outputs[name.removesuffix("_mean")])
        if name.endswith("_mean"):
            got = got.mean((1, 2))
        elif got.ndim == 4:
            got = got.transpose(0, 3, 1, 2)
        assert_close(got, want, BOUND, name)
    whole = quick_jit(model.apply)(variables, images)
    assert_close(whole, np.asarray(outputs["embedding"]), 1e-6, "embedding in one go")


@pytest.mark.parametrize(("depth", "millions"), [("ir50", 43.59), ("ir101", 65.15)])
def test_sizes_of_the_paper(depth, millions):
    """KP-RPE, Table 3 (numbers from the official code)."""
    model = registry.network(f"iresnet_{depth}").make()
    images = jnp.zeros((1, 112, 112, 3))
    params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert round(count / 1e6, 2) == millions
