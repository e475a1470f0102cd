"""The transformers of Face-ViT against stored outputs of the official code, float32.

Bounds and what gradients are measured against: as in test_vit.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.backbones.arcface_resnet import ArcFaceResNet
from kprpe_jax.interop.face_vit import (
    export_weights,
    face_vit_from_official,
    import_weights,
)
from kprpe_jax.losses.margin import make_margin, margin_logits, unit
from kprpe_jax.matching.two_image import feature_similarity, same_probability
from tests.golden.drawn_weights import draw_weights
from tests.golden.golden import assert_close, case_names, case_params, load_case
from tests.quick import quick_jit

pytestmark = pytest.mark.golden

VALUE_BOUND = 2e-5
GRADIENT_BOUND = 1e-4
GRADIENT_FLOOR = 1e-2
CNN_BOUND = 1e-4  # as in test_patch_backbones
MARGIN = make_margin("arcface", margin=0.5, scale=64.0, angle="free")


def cases(prefix, *, full):
    """Cases of networks whose CNN is, or is not, part of the case."""
    kept = [
        name
        for name in case_names(prefix)
        if "verification" not in name
        and load_case(name).meta.get("full_cnn", False) == full
    ]
    return kept or case_params(f"{prefix}: none, full={full}")


def official_model(meta):
    """The network of a case; it sees the stored numbers as they are."""
    name = meta["official_class"].rpartition(".")[2]
    model = face_vit_from_official(name, meta["constructor_kwargs"])
    if model.encoder.windows is None:
        return model
    windows = model.encoder.windows._replace(scale=1.0, shift=0.0)
    return model.clone(encoder=model.encoder.clone(windows=windows))


def as_patches(maps):
    """[B, C, h, w] -> [B, h * w, C]."""
    return maps.reshape(*maps.shape[:2], -1).swapaxes(1, 2)


def logits_of(features, centers, labels):
    cosine = unit(features) @ unit(centers).T
    is_target = jnp.arange(len(centers)) == labels[:, None]
    return margin_logits(cosine, is_target, MARGIN)


def cross_entropy(logits, labels):
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)
    return -chosen.mean()


def outputs_of(model, kind, train, centers, variables, x, labels):
    """All that a case may have stored, and the variables after."""
    if kind in ("h1", "v", "vs", "h2"):
        images = (x,) if kind != "h2" else jnp.split(x, 2)
        encoded = model.bind(variables).encoder(*images, train=False)
        result = model.apply(variables, *images)
        if kind == "h2":
            return dict(logits2=result, pred=result.argmax(-1)), variables
        return dict(
            emb=result,
            tokens=encoded.patches[0],
            logits=logits_of(result, centers, labels),
        ), variables
    pair = jnp.split(x, 2)
    encoded = model.bind(variables).encoder(*pair, train=False)
    features, after = model.apply(
        variables, *pair, train=train, mutable=["batch_stats"]
    )
    cosine = feature_similarity(features)
    logits = logits_of(features.trained, centers, labels)
    result = dict(f1=features.first, f2=features.second, cosine=cosine, logits=logits)
    result |= dict(cosine_clamped=jnp.clip(cosine, 0, 1))
    result |= dict(ce_loss=cross_entropy(logits, labels))
    for number, tokens in enumerate(encoded.patches, 1):
        result |= {f"tokens{number}": tokens, f"tokens{number}_mean": tokens.mean(1)}
    for index, attention in enumerate(encoded.attention):
        result[f"attn{index}_cls_row"] = attention[:, :, 0]
    return result, {**variables, **after}


@pytest.mark.parametrize("case", cases("facevit_", full=False))
def test_outputs_and_gradients(case):
    loaded = load_case(case)
    meta, arrays = loaded.meta, loaded.arrays
    model, train = official_model(meta), meta["mode"] == "train"
    weights = import_weights(model, arrays["param"])
    assert weights.cnn is None
    turn = as_patches
    if model.encoder.windows is not None:
        turn = lambda x: x.transpose(0, 2, 3, 1)  # noqa: E731
    x, labels = turn(arrays["in"]["x"]), arrays["in"].get("labels")
    compute = partial(outputs_of, model, meta["kind"], train)

    def loss(params, centers, x):
        variables = {**weights.variables, "params": params}
        outputs, after = compute(centers, variables, x, labels)
        cotangent = arrays["in"].get("cotangent", 0.0)
        return jnp.sum(outputs.get("logits", 0.0) * cotangent), (outputs, after)

    arguments = weights.variables["params"], weights.centers, x
    if "grad" not in arrays:
        outputs, after = quick_jit(loss)(*arguments)[1]
    else:
        graded = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)
        (_, (outputs, after)), gradients = quick_jit(graded)(*arguments)
    outputs = outputs | export_weights(model, after)
    for name, want in arrays["out"].items():
        assert_close(outputs[name], want, VALUE_BOUND, name)
    if "grad" not in arrays:
        return
    params, centers, x = gradients
    got = export_weights(model, {"params": params})
    got |= {"loss.weight": centers, "in::x": x}
    stored = arrays["grad"]
    assert set(got) == set(stored)
    floor = GRADIENT_FLOOR * max(float(np.abs(g).max()) for g in stored.values())
    for name, want in stored.items():
        if name == "in::x":
            want = turn(want)
        assert_close(got[name], want, GRADIENT_BOUND, f"grad {name}", floor=floor)


@pytest.mark.parametrize("case", cases("facevit_", full=True))
def test_with_its_cnn(case):
    loaded = load_case(case)
    model = official_model(loaded.meta)
    weights = import_weights(model, draw_weights(loaded.meta))
    backbone, want = ArcFaceResNet(), loaded.arrays["out"]
    images = loaded.arrays["in"]["image"].transpose(0, 2, 3, 1)
    maps = quick_jit(lambda v, x: backbone.apply(v, x, method="features")["patches"])
    maps = np.asarray(maps(weights.cnn, images)).transpose(0, 3, 1, 2)
    patches = as_patches(maps)
    if loaded.meta["kind"] == "h1":
        got = {"emb": quick_jit(model.apply)(weights.variables, patches)}
    else:
        features = quick_jit(model.apply)(weights.variables, *np.split(patches, 2))
        got = {"f1": features.first, "f2": features.second, "embedding_88": maps}
        got["cosine_clamped"] = np.clip(feature_similarity(features), 0, 1)
    assert set(got) == set(want)
    for name, array in got.items():
        assert_close(array, want[name], CNN_BOUND, name)


def test_probability_orders_as_the_official_choice():
    logits = jnp.asarray([[0.0, 1.0], [2.0, 0.0]])
    assert (same_probability(logits) > 0.5).tolist() == [True, False]
