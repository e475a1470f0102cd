"""SwinGait, its baselines and gait metrics against stored outputs, in float32."""

import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.backbones.gaitbase import GaitBase
from kprpe_jax.backbones.gaitset import GaitSet
from kprpe_jax.backbones.swin_gait import SwinGait
from kprpe_jax.evaluation.gait import gait_metrics, part_distances
from kprpe_jax.layers.parts import horizontal_pyramid, set_pooling
from kprpe_jax.weights import export_weights, import_weights
from tests.golden.golden import assert_close, case_params, load_case
from tests.quick import quick_jit

pytestmark = pytest.mark.golden

BOUND = 1e-4


def model_of(options, image_size):
    """Our network for the arguments of a case, official or put together."""
    classes = options.get("SeparateBNNecks", options).get("class_num")
    window = tuple(options.get("window_size", (3, 3, 5)))
    if options.get("two_d"):
        assert window[0] == 1
        window = window[1:]
    model = SwinGait(
        classes, image_size, bins=tuple(options["bin_num"]), window=window,
        mask_padding=False,
    )  # fmt: skip
    options = options.get("Backbone", options)
    model = model.clone(
        channels=tuple(options["channels"]),
        stem_depths=tuple(options["layers"][:2]),
        depths=tuple(options["layers"][2:]),
    )
    if "embed_dim" not in options:  # the official class has no choice there
        return model
    return model.clone(
        map_size=tuple(options["upsample"]),
        width=options["embed_dim"],
        num_heads=tuple(options["num_heads"]),
        part_dim=options["out_channels"],
    )


def weights_of(case):
    """Stored weights, or those that the rule in the JSON makes."""
    if not case.meta.get("generated"):
        return case.arrays["param"]
    rng, weights = np.random.default_rng(case.meta["weight_seed"]), {}
    for name, shape, kind, p, q in case.meta["weight_table"]:
        if kind == "normal":
            drawn = p + q * rng.standard_normal(shape)
        else:
            drawn = rng.uniform(p, q, shape)
        weights[name] = drawn.astype(np.float32)
    for name, total in case.meta["weight_checks"].items():
        assert weights[name].astype(np.float64).sum() == pytest.approx(total, abs=1e-6)
    return weights


@pytest.mark.parametrize("case", case_params("swingait"))
def test_swin_gait(case):
    case = load_case(case)
    given, stored = case.arrays["in"], dict(case.arrays["out"])
    model = model_of(case.options, given["sils"].shape[2:])
    variables = import_weights(model, weights_of(case))

    def forward(variables, silhouettes):
        mask = jnp.ones(silhouettes.shape[:2], bool)
        maps = model.apply(variables, silhouettes, mask=mask, method="frame_maps")
        return maps, model.apply(variables, silhouettes)

    maps, output = quick_jit(forward)(variables, jnp.asarray(given["sils"]))
    got = {
        "embeddings": output.embeddings.swapaxes(1, 2),
        "logits": output.logits.swapaxes(1, 2),
        "layer2": maps.stem.transpose(0, 4, 1, 2, 3),
        "ulayer": maps.resized.transpose(0, 4, 1, 2, 3),
        "transformer": maps.tokens.transpose(0, 4, 1, 2, 3),
    }
    packed = stored.pop("embeddings_packed", None)
    for key, want in stored.items():  # some hold the first channels or frames only
        part = tuple(slice(n) for n in want.shape)
        assert_close(got[key][part], want, BOUND, key)
    if packed is not None:
        got = embed_packed(model, variables, given["sils"], given["seqL"])
        assert_close(got.swapaxes(1, 2), packed, BOUND, "embeddings_packed")


def embed_packed(model, variables, silhouettes, lengths):
    """All frames in one row, pooled by sequence; the 3D network mixes them before."""

    def run(model, frames):
        everything = jnp.ones((1, len(frames)), bool)
        tokens = model.frame_maps(frames[None], mask=everything).tokens
        rows = jnp.split(tokens, np.cumsum(lengths)[:-1], axis=1)
        pooled = [set_pooling(row, jnp.ones(row.shape[:2], bool)) for row in rows]
        parts = horizontal_pyramid(jnp.concatenate(pooled), model.bins)
        return model.heads(parts, train=False)[0]

    frames = jnp.asarray(silhouettes.reshape(-1, *silhouettes.shape[2:]))
    return quick_jit(lambda *given: model.apply(*given, method=run))(variables, frames)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("case", case_params("gait3d_metrics"))
def test_metrics(case, metric):
    arrays = load_case(case).arrays
    given, stored = arrays["in"], arrays["out"]
    prefix = metric[:3]
    embeddings = given["embeddings"].swapaxes(1, 2)
    probe = given["is_probe"].astype(bool)
    distances = part_distances(embeddings[probe], embeddings[~probe], metric=metric)
    assert_close(distances, stored[f"{prefix}_dist"], 1e-5, "distances")
    got = gait_metrics(distances, given["labels"][probe], given["labels"][~probe])
    assert_close(got.ap, stored[f"{prefix}_AP"], 1e-5, "AP")
    assert_close(got.inp, stored[f"{prefix}_INP"], 1e-5, "INP")
    assert_close(100 * np.array(got[:5]), stored[f"{prefix}_summary"], 1e-5, "summary")
    assert got.dropped == probe.sum() - len(stored[f"{prefix}_AP"])
    assert got.rank_10 == pytest.approx(stored[f"{prefix}_cmc"][9], abs=1e-5)


@pytest.mark.parametrize("case", [*case_params("gaitset_"), *case_params("gaitbase_")])
def test_baselines(case):
    """GaitSet and GaitBase."""
    loaded = load_case(case)
    silhouettes = loaded.arrays["in"]["silhouettes"]
    model = baseline_of(loaded, silhouettes.shape[2:])
    variables = import_weights(model, loaded.arrays["param"])
    output = quick_jit(model.apply)(variables, silhouettes)
    stored = loaded.arrays["out"]
    for name, want in stored.items():
        got = getattr(output, name).swapaxes(1, 2)
        assert_close(got, want, BOUND, name)
    assert (output.logits is None) == ("logits" not in stored)
    exported = export_weights(model, variables)
    for name, want in exported.items():
        np.testing.assert_array_equal(loaded.arrays["param"][name], want)


def baseline_of(case, image_size):
    """Our network for the arguments of a case."""
    options, heads = case.options, case.options["SeparateFCs"]
    fields = dict(
        image_size=tuple(image_size),
        bins=tuple(options["bin_num"]),
        part_dim=heads["out_channels"],
    )
    if case.official_class == "GaitSet":
        silhouette, *channels = options["in_channels"]
        assert (silhouette, channels[-1]) == (1, heads["in_channels"])
        assert heads["parts_num"] == 2 * sum(fields["bins"])
        return GaitSet(channels=tuple(channels), **fields)
    backbone, necks = options["backbone_cfg"], options["SeparateBNNecks"]
    assert (backbone["type"], backbone["block"]) == ("ResNet9", "BasicBlock")
    assert backbone.get("in_channel", 1) == 1
    return GaitBase(
        necks["class_num"],
        channels=tuple(backbone["channels"]),
        depths=tuple(backbone["layers"]),
        strides=tuple(backbone["strides"]),
        max_pool=backbone["maxpool"],
        **fields,
    )
