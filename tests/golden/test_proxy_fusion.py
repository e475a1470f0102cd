"""ProxyFusion against stored outputs of the official code, in float32.

Bounds are relative to the largest value of each array.
"""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.core.features import Features
from kprpe_jax.fusion.cluster_aggregate import ImageSets
from kprpe_jax.fusion.proxy_fusion import SIDES, ProxyFusion
from kprpe_jax.weights import export_weights, import_weights
from tests.golden.golden import assert_close, case_params, load_case
from tests.quick import quick_jit

pytestmark = pytest.mark.golden

BOUND = 1e-4


@pytest.mark.parametrize("case", case_params("proxyfusion"))
def test_proxy_fusion(case):
    """Sets of several lengths, padded to one, from both sides."""
    loaded = load_case(case)
    given, want = loaded.arrays["in"], loaded.arrays["out"]
    names = sorted(name for name in given if name.startswith("features_"))
    lengths = [len(given[name]) for name in names]
    embeddings = np.full((len(names), max(lengths) + 1, loaded.options["DIM"]), 7.0)
    for row, name in enumerate(names):
        embeddings[row, : lengths[row]] = given[name]
    mask = np.arange(embeddings.shape[1]) < np.array(lengths)[:, None]
    sets = ImageSets(Features(jnp.float32(embeddings)), jnp.asarray(mask))

    for side in SIDES:
        model = ProxyFusion(loaded.options["DIM"], side)
        variables = import_weights(model, loaded.arrays["param"])

        def run(model, sets):
            state = model.update(model.init_state(len(sets.mask)), sets)
            similarities = model.similarities(sets.features.embeddings, sets.mask)
            return model.vectors(state), similarities

        run = quick_jit(partial(model.apply, method=run))
        vectors, similarities = run(variables, sets)
        for row, name in enumerate(names):
            number = name.removeprefix("features_")
            assert_close(
                vectors[row], want[f"{side}_{number}"], BOUND, f"{side} {name}"
            )
            if side == "probe":
                got = similarities[row, : lengths[row]]
                assert_close(got, want[f"similarities_{number}"], BOUND, "similarities")
    exported = export_weights(model, variables)
    for name, stored in loaded.arrays["param"].items():
        np.testing.assert_array_equal(exported[name], stored)
