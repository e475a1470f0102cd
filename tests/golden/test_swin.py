"""Swin, plain and with keypoints, against stored outputs of the official code.

The cases state how far the official float32 run is from the same in float64: up to 3e-4
inside and 2e-5 in the embedding, at peaks of several units. Bounds are relative to the
largest value of each array.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.backbones.swin import Swin
from kprpe_jax.layers.windows import token_places
from kprpe_jax.weights import import_weights
from tests.golden.golden import assert_close, case_params, load_case
from tests.quick import quick_jit

pytestmark = pytest.mark.golden

BOUND = 1e-4


def model_of(options):
    """Our network for the arguments of either official class."""
    rpe = options.get("rpe_config")
    options = options.get("swin", options)
    fields = {}
    if rpe is not None:
        assert rpe["ctx_type"] == "rel_keypoint_splithead_unshared"
        kept = {name: rpe[name] for name in ("method", "ratio", "num_keypoints")}
        fields = dict(position="kprpe", position_options=dict(mesh="image", **kept))
    return Swin(
        patch_size=options["patch_size"][0],
        width=options["embed_dim"],
        depths=tuple(options["depths"]),
        num_heads=tuple(options["num_heads"]),
        window=tuple(options["window_size"]),
        image_size=tuple(options["img_size"]),
        output_dim=options["num_classes"],
        mask_padding=False,
        **fields,
    )


@pytest.mark.parametrize("case", case_params("swin_"))
def test_outputs(case):
    case = load_case(case)
    model = model_of(case.options)
    variables = import_weights(model, case.arrays["param"])
    images = jnp.asarray(case.arrays["in"]["x"].transpose(0, 2, 3, 1))
    keypoints = case.arrays["in"].get("keypoints")

    def forward(variables, images, keypoints):
        def run(model, images, keypoints):
            maps = list(model.feature_maps(images, keypoints).values())
            bias = model.bias(keypoints) if model.uses_keypoints else []
            return maps, model.embed_map(maps[-1]), [b for s in bias for b in s]

        return model.apply(variables, images, keypoints, method=run)

    maps, embedding, biases = quick_jit(forward)(variables, images, keypoints)
    plans = [plan for n in range(len(model.depths)) for plan in model.plans(n)]
    for key, want in case.arrays["out"].items():
        name, _, number = key.rpartition("_")
        if key == "embedding":
            assert_close(embedding, want, BOUND, key)
        elif name == "feature":
            assert_close(maps[int(number)], want, BOUND, key)
        else:  # queries in the padding have no bias there; what they see is cut off
            block = int(number.removeprefix("block"))
            places = token_places(plans[block])
            inside = (places < np.array(plans[block].grid)).all(-1)
            got = np.asarray(biases[block]) * inside[:, None, :, None]
            assert_close(got.reshape(want.shape), want, BOUND, key)
