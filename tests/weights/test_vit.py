import jax
import numpy as np
import pytest

from kprpe_jax import registry
from kprpe_jax.weights import check_weights, export_weights, import_weights
from kprpe_jax.weights.official_vit import vit_from_official

CONSTRUCTOR = dict(
    img_size=16, patch_size=8, num_classes=6, embed_dim=8, depth=3, num_heads=2,
    mlp_ratio=2, norm_layer="ln", mask_ratio=0,
)  # fmt: skip
KPRPE = dict(name="KPRPE_shared", method="product", ratio=1.9, num_keypoints=4)
IRPE = dict(name="iRPE", mode="ctx", method="product", ratio=1.9, shared_head=True)
ENCODINGS = {
    "plain": None,
    "absolute": dict(KPRPE, ctx_type="keypoint"),
    "relative": dict(KPRPE, ctx_type="rel_keypoint"),
    "splithead": dict(KPRPE, ctx_type="rel_keypoint_splithead"),
    "multihead": dict(KPRPE, ctx_type="rel_keypoint_splithead_unshared"),
    "v2": dict(KPRPE, ctx_type="rel_keypoint_splithead_unshared_v2"),
    "irpe": dict(IRPE, rpe_on="qkv"),
    "irpe_cross": dict(IRPE, rpe_on="qv", method="cross", shared_head=False),
    "bias_cross": dict(IRPE, rpe_on="k", method="cross", mode="bias"),
}


def small(rpe, **fields):
    return vit_from_official(CONSTRUCTOR | dict(rpe_config=rpe), **fields)


def random_weights(model, rng):
    """A state dict of the model's official names, from random variables."""
    inputs = [np.zeros((1, 16, 16, 3), np.float32), np.zeros((1, 4, 2), np.float32)]
    shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)
    variables = jax.tree.map(
        lambda s: rng.normal(size=s.shape).astype(np.float32), shapes
    )
    return variables, export_weights(model, variables)


@pytest.mark.slow
@pytest.mark.parametrize("scan", [True, False])
@pytest.mark.parametrize("rpe", ENCODINGS.values(), ids=ENCODINGS)
def test_round_trip(rpe, scan, rng):
    model = small(rpe, scan=scan)
    variables, weights = random_weights(model, rng)
    again = import_weights(model, {f"module.net.{k}": v for k, v in weights.items()})
    jax.tree.map(np.testing.assert_array_equal, again, variables)


def test_scanned_and_unrolled_layers_hold_the_same(rng):
    _, weights = random_weights(small(ENCODINGS["irpe"]), rng)
    scanned, unrolled = (
        import_weights(small(ENCODINGS["irpe"], scan=scan), weights)["params"]
        for scan in (True, False)
    )
    for n in range(3):
        layer = jax.tree.map(lambda leaf, n=n: leaf[n], scanned["blocks"])
        jax.tree.map(np.testing.assert_array_equal, layer, unrolled[f"blocks_{n}"])


def test_keypoint_layer_is_depth_head_bucket(rng):
    model = small(ENCODINGS["multihead"])
    _, weights = random_weights(model, rng)
    kernel = import_weights(model, weights)["params"]["bias_tables"]["kernel"]
    row = (2 * 2 + 1) * 49 + 17  # block 2, head 1, bucket 17
    np.testing.assert_array_equal(
        kernel[:, 2, 1, 17], weights["keypoint_linear.weight"][row]
    )


def test_mask_token(rng):
    model = small(None).clone(mask_ratio=0.1)
    variables, weights = random_weights(model, rng)
    assert weights["mask_token"].shape == (1, 1, 8)
    again = import_weights(model, weights)["params"]["mask_token"]
    np.testing.assert_array_equal(again, variables["params"]["mask_token"])


def test_wrong_weights_are_described(rng):
    _, weights = random_weights(small(ENCODINGS["splithead"]), rng)
    with pytest.raises(ValueError, match=r"weight \(got \[98, 8\], needs \[294, 8\]\)"):
        import_weights(small(ENCODINGS["multihead"]), weights)
    with pytest.raises(ValueError, match="surplus: keypoint_linear.weight, keypoint"):
        check_weights(small(None), weights)
    with pytest.raises(
        ValueError, match="does not fit vit_base; missing: blocks.3.norm"
    ):
        check_weights("vit_base", weights)


def test_options_that_official_weights_do_not_have():
    model = small(ENCODINGS["multihead"])
    options = {**model.position_options, "scale_bias": True}
    with pytest.raises(ValueError, match="undivided; got a model with scale_bias=True"):
        import_weights(model.clone(position_options=options), {"a": np.ones(1)})
    model = small(ENCODINGS["irpe"])
    options = {**model.position_options, "per_layer": False}
    with pytest.raises(ValueError, match="per block; got a model with per_layer=False"):
        import_weights(model.clone(position_options=options), {"a": np.ones(1)})


@pytest.mark.parametrize("name", [x for x in registry.NETWORKS if x.startswith("vit_")])
def test_official_names(name):
    model = registry.network(name).make(scan=False)
    assert (model.depth, model.num_heads) == ((24, 16) if "base" in name else (12, 8))
    assert model.scan is False
    if "kprpe" in name:
        assert model.position_options["per_layer"] == ("multihead" in name)
        assert not model.position_options["scale_bias"]


def test_configurations():
    model = small(dict(IRPE, rpe_on="k", method="euc", mode="bias"))
    assert model.position == "rpe"
    assert model.position_options["method"] == "euclidean"
    assert vit_from_official({**CONSTRUCTOR, "mask_ratio": 0.5}).mask_ratio == 0.1
    assert vit_from_official({**CONSTRUCTOR, "img_size": [16, 24]}).grid == (2, 3)


def test_configuration_errors():
    wrong = {**CONSTRUCTOR, "dept": 3}
    del wrong["depth"]
    with pytest.raises(ValueError, match=r"missing: \['depth'\], unknown: \['dept'\]"):
        vit_from_official(wrong)
    with pytest.raises(ValueError, match="qkv_bias must be False, as in all released"):
        vit_from_official({**CONSTRUCTOR, "qkv_bias": True})
    with pytest.raises(ValueError, match="unknown ctx_type 'rel_keypoint_v3'"):
        small(dict(KPRPE, ctx_type="rel_keypoint_v3"))
    with pytest.raises(ValueError, match="supported on keys .*got rpe_on 'qk'"):
        small(dict(IRPE, mode="bias", rpe_on="qk"))
