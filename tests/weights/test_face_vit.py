from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from kprpe_jax.backbones.arcface_resnet import ArcFaceResNet
from kprpe_jax.matching.patch_encoder import PairEncoder
from kprpe_jax.matching.two_image import TwoLinear
from kprpe_jax.weights import export_weights, import_weights
from kprpe_jax.weights.face_vit import (
    face_vit_from_official,
    import_checkpoint,
    published_face_vit,
)
from tests.quick import quick_jit

SIZES = dict(depth=1, heads=2, mlp_dim=4, dim=6, out_dim=5, emb_dropout=0.0)
PIXELS = dict(image_size=16, patch_size=8, ac_patch_size=12, pad=4)
VARIANTS = {
    "V": ("ViT_face", PIXELS),
    "overlapping": ("ViTs_face", PIXELS),
    "H1": ("Hybrid_ViT", {}),
    "H2": ("ViT_face_model", dict(use_cls=True)),
    "H2L": ("ViT_face_model", {}),
    "shared": ("ViT_face_model", dict(singleMLP=True)),
    "pixels": ("ViT_face_model", dict(PIXELS, no_face_model=True)),
    "gray": ("ViT_face_model", dict(PIXELS, no_face_model=True, channels=1)),
    "gray V": ("ViT_face", dict(PIXELS, channels=1)),
    "H1 without positions": ("Hybrid_ViT", dict(remove_pos=True)),
    "H2 without positions": ("ViT_face_model", dict(use_cls=True, remove_pos=True)),
    "H2L without separator": ("ViT_face_model", dict(remove_sep=True)),
    "pixels alone": (
        "ViT_face_model",
        dict(PIXELS, no_face_model=True, remove_sep=True, remove_pos=True),
    ),
}


def made(name):
    official, fields = VARIANTS[name]
    return face_vit_from_official(official, SIZES | fields)


def drawn(model, rng):
    encoder = model.encoder
    images = jnp.zeros((1, encoder.num_patches, encoder.width))
    if encoder.windows is not None:
        images = jnp.zeros((1, 16, 16, encoder.windows.channels))
    count = 1 if type(model).__name__ == "OneImage" else 2
    shapes = jax.eval_shape(model.init, jax.random.key(0), *[images] * count)
    return jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)


@pytest.mark.parametrize("name", VARIANTS)
def test_round_trip(name, rng):
    """Also with what the official code stores and never uses."""
    model = made(name)
    variables = drawn(model, rng)
    weights = export_weights(model, variables)
    if name == "H1":
        table = weights["pos_embedding"]
        unused = np.ones((1, 64, 6), np.float32)
        weights["pos_embedding"] = np.concatenate([table, unused], 1)
    if made(name).encoder.attention == "residual":
        weights["transformer.layers.0.0.fn.norm.weight"] = np.ones(6, np.float32)
        weights["transformer.layers.0.0.fn.norm.bias"] = np.ones(6, np.float32)
    weights["loss.weight"] = np.ones((3, 5), np.float32)
    again = import_checkpoint(model, {f"module.{k}": v for k, v in weights.items()})
    jax.tree.map(np.testing.assert_array_equal, again.variables, variables)
    assert again.cnn is None
    np.testing.assert_array_equal(again.centers, weights["loss.weight"])


def test_names_without_separator_and_positions(rng):
    """The parameters of the official constructor, as it makes them."""
    names = {
        name: set(export_weights(made(name), drawn(made(name), rng)))
        for name in VARIANTS
    }
    assert names["H2L"] - names["H2L without separator"] == {"sep"}
    assert names["H1"] - names["H1 without positions"] == {"pos_embedding"}
    assert names["pixels"] - names["pixels alone"] == {"sep", "pos_embedding"}
    model = made("H2L without separator")
    weights = export_weights(model, drawn(model, rng))
    assert weights["pos_embedding"].shape == (1, 2 * 64 + 1, 6)
    model = made("gray")
    weights = export_weights(model, drawn(model, rng))
    assert weights["patch_to_embedding.weight"].shape == (6, 12 * 12)


@pytest.mark.parametrize("options", [dict(remove_sep=True), dict(remove_pos=True), {}])
def test_tokens_of_two_images(options, rng):
    """[CLS] first [SEP] second, by hand, through one layer of NumPy."""
    model = face_vit_from_official("ViT_face_model", SIZES | options).encoder
    first, second = rng.normal(size=(2, 2, 64, 6)).astype(np.float32)
    params = jax.tree.map(
        lambda s: rng.normal(size=s.shape),
        jax.eval_shape(
            partial(model.init, train=False), jax.random.key(0), first, second
        ),
    )["params"]
    tokens = quick_jit(lambda p, *x: model.apply({"params": p}, *x, train=False))(
        params, first, second
    )

    def whole(token):
        return np.broadcast_to(token, (2, 1, 6))

    parts = [whole(params["cls_token"]), first, second]
    if not options.get("remove_sep"):
        parts.insert(2, whole(params["sep_token"]))
    x = np.concatenate(parts, 1)
    if not options.get("remove_pos"):
        x = x + params["position_embedding"]
    x = numpy_layer(params["layers_0"], x)
    np.testing.assert_allclose(tokens.summary, x[:, 0], atol=1e-3)
    np.testing.assert_allclose(tokens.patches[0], x[:, 1:65], atol=1e-3)
    np.testing.assert_allclose(tokens.patches[1], x[:, -64:], atol=1e-3)


def numpy_layer(p, x):
    """The official hybrids' layer: no norm before attention; logits by the width."""
    qkv = (x @ p["attention"]["qkv"]["kernel"]).reshape(*x.shape[:2], 3, 2, 64)
    q, k, v = np.moveaxis(qkv, 2, 0)
    logits = np.einsum("bihd,bjhd->bhij", q, k) / np.sqrt(x.shape[-1])
    attention = np.exp(logits - logits.max(-1, keepdims=True))
    attention /= attention.sum(-1, keepdims=True)
    out = np.einsum("bhij,bjhd->bihd", attention, v).reshape(*x.shape[:2], -1)
    proj = p["attention"]["proj"]
    x = x + out @ proj["kernel"] + proj["bias"]
    centered = x - x.mean(-1, keepdims=True)
    normed = centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-5)
    normed = normed * p["norm2"]["scale"] + p["norm2"]["bias"]
    hidden = normed @ p["mlp"]["fc1"]["kernel"] + p["mlp"]["fc1"]["bias"]
    hidden = hidden * (1 + erf(hidden / np.sqrt(2))) / 2
    return x + hidden @ p["mlp"]["fc2"]["kernel"] + p["mlp"]["fc2"]["bias"]


@pytest.mark.parametrize("name", ["V", "overlapping"])
def test_color_values_are_those_that_the_weights_were_trained_on(name, rng):
    """White images are 255 in every pixel of a window."""
    model = made(name)
    variables = drawn(model, rng)
    weights = export_weights(model, variables)["patch_to_embedding.weight"]
    size = model.encoder.windows.size
    assert weights.shape == (6, 3 * size**2)
    encoder = model.encoder.clone(depth=0)
    params = {
        k: v for k, v in variables["params"]["encoder"].items() if "layers" not in k
    }
    white = jnp.ones((1, 16, 16, 3))
    call = quick_jit(lambda p, x: encoder.apply({"params": p}, x, train=False))
    got = call(params, white).patches[0][0, 0] - params["position_embedding"][1]
    inside = np.ones((size, size))
    if name == "overlapping":  # the first window starts 4 pixels outside
        inside[:4] = inside[:, :4] = 0
    order = np.repeat(inside.ravel(), 3) if name == "V" else np.tile(inside.ravel(), 3)
    want = 255 * weights @ order + params["patch_embed"]["bias"]
    np.testing.assert_allclose(got, want, rtol=1e-4)


def test_the_cnn_comes_along(rng):
    cnn = ArcFaceResNet()
    zeros = jax.tree.map(
        lambda s: np.zeros(s.shape, np.float32),
        jax.eval_shape(cnn.init, jax.random.key(0), jnp.zeros((1, 128, 128, 3))),
    )
    zeros["params"]["stem_act"]["slope"] = np.full(1, 0.5, np.float32)
    stored = export_weights(cnn, zeros)
    model = made("H2")
    weights = export_weights(model, drawn(model, rng))
    weights |= {f"face_model.{name}": array for name, array in stored.items()}
    again = import_checkpoint(model, weights)
    assert again.cnn["params"]["stem_act"]["slope"] == 0.5
    assert again.centers is None


def test_weights_of_another_variant(rng):
    model = made("H2L")
    weights = export_weights(model, drawn(model, rng))
    with pytest.raises(ValueError, match=r"fit this SameOrNot; missing: .*fc.weight"):
        import_weights(made("H2"), weights)
    weights = export_weights(made("V"), drawn(made("V"), rng))
    weights["patch_to_embedding.weight"] = np.zeros((6, 10), np.float32)
    with pytest.raises(ValueError, match=r"patch_to_embedding.weight \(got \[6, 10\]"):
        import_weights(made("V"), weights)


def test_thesis_form_has_no_official_weights():
    model = TwoLinear(PairEncoder(1, 1))
    with pytest.raises(ValueError, match="are made for .*'head_norm': 'batch'.*; got"):
        import_weights(model, {"fc1.weight": np.zeros(1)})


def test_unknown_variants():
    with pytest.raises(ValueError, match="unknown class 'Swin'; use one of"):
        face_vit_from_official("Swin", SIZES)
    with pytest.raises(ValueError, match="unknown network 'H2L'; use one of one_image"):
        published_face_vit("H2L", depth=1, num_heads=1)
