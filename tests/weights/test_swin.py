"""Weights of Swin and SwinGait there and back, and what they are refused for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.backbones.swin import Swin
from kprpe_jax.backbones.swin_gait import SwinGait
from kprpe_jax.weights import check_weights, export_weights, import_weights

SWIN = Swin(
    patch_size=4, width=4, depths=(1, 2), num_heads=(1, 2), window=(2, 2),
    image_size=(16, 16), output_dim=3, mask_padding=False, position="kprpe",
    position_options=dict(mesh="image"),
)  # fmt: skip
GAIT = SwinGait(
    num_classes=3, image_size=(12, 8), channels=(2, 3), stem_depths=(1, 2),
    map_size=(8, 6), width=4, depths=(2, 1), num_heads=(1, 2), window=(2, 3), bins=(2,),
    part_dim=3, mask_padding=False,
)  # fmt: skip
CASES = {
    "continuous": (SWIN.clone(position="continuous"), (16, 16, 3)),
    "kprpe": (SWIN, (16, 16, 3)),
    "gait": (GAIT, (1, 12, 8)),
    "gait over time": (GAIT.clone(window=(2, 2, 3)), (1, 12, 8)),
}


def variables_of(model, shape):
    keypoints = (jnp.zeros((1, 5, 2)),) if model.uses_keypoints else ()
    inputs = jnp.zeros((1, *shape)), *keypoints
    shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_there_and_back(name):
    model, shape = CASES[name]
    variables = variables_of(model, shape)
    exported = export_weights(model, variables)
    buffer = np.zeros(4, np.float32)
    extra = {"layer.attn.relative_position_index": buffer}
    imported = import_weights(model, {**exported, **extra})
    jax.tree.map(np.testing.assert_array_equal, imported, variables)
    dropped = next(key for key in exported if key.endswith("qkv.bias"))
    del exported[dropped]
    with pytest.raises(ValueError, match=f"missing: {dropped}"):
        check_weights(model, exported)


def test_the_prefix_of_released_files_is_taken_off():
    exported = export_weights(SWIN, variables_of(SWIN, (16, 16, 3)))
    released = {
        name if name.startswith("keypoint_linear") else f"net.{name}": array
        for name, array in exported.items()
    }
    check_weights(SWIN, released)


def test_the_spare_part_is_left_out():
    exported = export_weights(GAIT, variables_of(GAIT, (1, 12, 8)))
    spare = dict(exported)
    for name, array in exported.items():
        if array.ndim == 3:
            spare[name] = np.concatenate([array, array[-1:] + 1])
        elif name.startswith("BNNecks.bn1d"):
            by_part = array.reshape(3, 2)
            spare[name] = np.concatenate([by_part, by_part[:, -1:] + 1], 1).reshape(-1)
    imported = import_weights(GAIT, spare)
    again = export_weights(GAIT, imported)
    assert set(again) == set(exported)
    for name, array in exported.items():
        np.testing.assert_array_equal(again[name], array)


def test_models_that_official_weights_do_not_fit():
    for model in (SWIN.clone(mask_padding=True), SWIN.clone(position_options=None)):
        with pytest.raises(ValueError, match="set mask_padding=False and position_opt"):
            check_weights(model, {"a": np.zeros(1)})
    for model in (GAIT.clone(mask_padding=True), GAIT.clone(position="kprpe")):
        with pytest.raises(ValueError, match="set mask_padding=False and position="):
            check_weights(model, {"a": np.zeros(1)})
