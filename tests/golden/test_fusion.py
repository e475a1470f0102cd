"""Set fusion against stored outputs of the official code, in float32.

Bounds are relative to the largest value of each array.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax import registry
from kprpe_jax.core.features import Features, style_statistics
from kprpe_jax.core.unit import unit
from kprpe_jax.fusion.aggregate import image_weights
from kprpe_jax.fusion.cluster_aggregate import VARIANTS, ClusterAggregate, ImageSets
from kprpe_jax.fusion.norm_embedding import (
    CLIP,
    STEPS,
    NormEmbedding,
    sinusoid_table,
)
from kprpe_jax.losses.set_fusion import (
    cosine_distance,
    permutation_loss,
    template_loss,
)
from kprpe_jax.weights import export_weights, import_weights
from tests.golden.golden import assert_close, case_params, load_case
from tests.quick import quick_jit

pytestmark = pytest.mark.golden

BOUND = 1e-4


def model_and_variables(case, embed_dim):
    options = case.options
    model = ClusterAggregate(
        embed_dim=embed_dim,
        num_clusters=options["num_centers"],
        style_dim=options["style_dim"],
        norm_dim=options["normemb_dim"],
        depth=options["depth"],
        num_heads=options["num_heads"],
        mixer_depth=options["depth"],
        per_channel=options["confidence_dim"] > 1,
        drop_path_rate=0.0,
        **VARIANTS["official"],
    )
    weights = case.arrays["param"]
    return model, import_weights(model, weights)


def tapped(given, sets, images):
    """Statistics [B, N, C, 2] of the stored maps [B N, C, h, w]."""
    names = sorted(name for name in given if name.startswith("map_"))
    maps = [jnp.moveaxis(given[name], 1, -1) for name in names]
    return style_statistics(maps).reshape(sets, images, -1, 2)


def outputs_of(fused, seen):
    """All that the official code returns, under its names.

    `seen` are the intermediates of the call.
    """
    features = fused.clusters.features
    confidence = fused.importance * jnp.linalg.norm(features, axis=-1, keepdims=True)
    (assignment,), (style,) = seen["assign"], seen["style"]
    blocks = [name for name in seen["cluster"] if name.startswith("block")]
    return {
        "style": style,
        "norm_embedding": seen["norm_embedding"]["__call__"][0],
        "tokens_after_blocks": seen["cluster"][max(blocks)]["__call__"][0],
        "A": assignment.map[:, None],
        "cluster_feature": features,
        "cluster_style": fused.clusters.styles,
        "confidence_weight": fused.importance,
        "conf": confidence,
        "weights": confidence / confidence.sum(1, keepdims=True),
        "aggregated": fused.embeddings,
        "sample_weight": image_weights(
            assignment.map, fused.importance, rows="normalized"
        ),
    }


def watched(module, method):
    return method in ("__call__", "assign", "style")


def assert_gradients(gradients, want, skip=("style_maker.cfcs.0",)):
    """Of weights, by official name; whole, or some rows and the sum of all sizes.

    Some gradients are 0 but for round-off, such as that of a bias of all queries.
    """
    for name, array in want.get("grad", {}).items():
        if not name.startswith("in::") and name not in skip:
            assert_close(gradients[name], array, BOUND, name, floor=1e-3)
    for name, rows in want.get("gradrows", {}).items():
        index = want["gradrowidx"][name]
        assert_close(gradients[name][index], rows, BOUND, name, floor=1e-3)
        total = np.abs(gradients[name]).sum()
        np.testing.assert_allclose(total, want["gradsum"][name][0], rtol=1e-3)


@pytest.mark.parametrize("case", case_params("caface_full"))
def test_one_call(case):
    case = load_case(case)
    given, want = case.arrays["in"], case.arrays["out"]
    features, train = given["features"], case.meta["mode"] == "train"
    sets, images, width = features.shape
    model, variables = model_and_variables(case, width)

    statistics = tapped(given, sets, images)
    stored = [want["style_stats_0"], want["style_stats_1"]]
    stored = np.concatenate(stored, axis=1).reshape(statistics.shape)
    assert_close(statistics, stored, BOUND, "style_stats")

    def run(params, features, maps, mask):
        style = tapped(maps, sets, images)
        batch = ImageSets(Features(features, style=style), mask)
        fused, after = model.apply(
            {**variables, "params": params}, batch, train=train,
            mutable=["batch_stats"], capture_intermediates=watched,
        )  # fmt: skip
        outputs = outputs_of(fused, after.pop("intermediates"))
        total = (outputs["aggregated"] * given.get("cotangent", 0)).sum()
        return total, (outputs, after)

    maps = {name: given[name] for name in given if name.startswith("map_")}
    mask = jnp.ones((sets, images), bool)
    arguments = variables["params"], features, maps, mask
    if "grad" in case.arrays:
        function = quick_jit(jax.grad(run, (0, 1, 2), has_aux=True))
        gradients, (outputs, after) = function(*arguments)
    else:
        _, (outputs, after) = quick_jit(run)(*arguments)
    for name, got in outputs.items():
        assert_close(got, want[name], BOUND, name)
    if train:
        exported = export_weights(model, {**variables, **after})
        for name, value in want.items():
            if name.startswith("after::"):
                assert_close(exported[name.removeprefix("after::")], value, BOUND, name)
    if "grad" in case.arrays:
        exported = export_weights(model, {"params": gradients[0]})
        assert_gradients(exported, case.arrays)
        for name, value in case.arrays["grad"].items():
            if name == "in::features":
                assert_close(gradients[1], value, BOUND, name)
            elif name.startswith("in::map_"):
                assert_close(gradients[2][name[4:]], value, BOUND, name)


@pytest.mark.parametrize("case", case_params("caface_seq"))
def test_stream(case):
    """Batches one after the other, in another order, and all at once."""
    case = load_case(case)
    given, want = case.arrays["in"], case.arrays["out"]
    features, style = given["features"], given["intermediate"]
    model, variables = model_and_variables(case, features.shape[-1])

    number = features.shape[1]

    @quick_jit
    def observe(state, mask):
        state, seen = model.apply(
            variables, state, features, style, mask, method="update_styled",
            capture_intermediates=watched,
        )  # fmt: skip
        assignment = seen["intermediates"]["assign"][0].map
        return state, assignment, model.apply(variables, state, method="finalize")

    def add(state, part):
        """The other images are there as padding: one program, and a test of masks."""
        mask = np.zeros((len(features), number), bool)
        mask[:, part] = True
        state, assignment, fused = observe(state, mask)
        return state, assignment[..., part], fused

    def check(name, state, assignment, fused):
        got = {
            "A": assignment[:, None],
            "aggregated": fused.embeddings,
            "cluster_feature": fused.clusters.features,
            "cluster_style": fused.clusters.styles,
            "confidence_weight": fused.importance,
            "memory_attn": state.mass[..., None],
        }
        stored = {n: want[f"{name}_{n}"] for n in got if f"{name}_{n}" in want}
        assert len(stored) >= 4
        for n, value in stored.items():
            assert_close(got[n], value, BOUND, f"{name}_{n}")

    ends = np.cumsum(given["chunks"]).tolist()
    parts = [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)]
    state = model.init_state(len(features))
    for step, part in enumerate(parts):
        state, assignment, fused = add(state, part)
        check(f"step{step}", state, assignment, fused)

    state = model.init_state(len(features))
    for index in given["batch_order_2"]:
        state, assignment, fused = add(state, parts[index])
    check("order2_final", state, assignment, fused)
    whole = add(model.init_state(len(features)), slice(0, ends[-1]))
    check("concurrent", *whole)
    check_demo(case, add, model.init_state(len(features)))


def check_demo(case, add, empty):
    """The official demo: near-equal chunks, a unit result, a weight per image."""
    want = case.arrays["out"]
    longest = case.options["max_element"]
    number = sum(case.options["chunks"])
    for name, chunks in (("split", -(-number // longest)), ("whole", 1)):
        state, maps = empty, []
        for part in np.array_split(np.arange(number), chunks):
            state, assignment, fused = add(state, slice(part[0], part[-1] + 1))
            maps.append(assignment)
        weights = image_weights(
            jnp.concatenate(maps, -1), fused.importance, rows="normalized"
        )
        embedding = unit(fused.embeddings)[0]
        assert_close(embedding, want[f"demo_{name}_fused"], BOUND, f"demo_{name}")
        assert_close(embedding, want[f"val_{name}_fused"], BOUND, f"val_{name}")
        assert_close(weights[0], want[f"demo_{name}_weights"], BOUND, f"demo_{name}")


@pytest.mark.parametrize("case", case_params("norm_embedding"))
def test_norm_embedding(case):
    case = load_case(case)
    given, want = case.arrays["in"], case.arrays["out"]
    options = case.options
    assert (options["clip_val"], options["clip_multi"]) == (CLIP, STEPS)
    model = NormEmbedding(options["d_model"], "toward_zero", "from_zero", True)
    stored = case.arrays["param"]
    variables = {
        "params": {"scale": stored["scale"]},
        "batch_stats": {
            "norm": {
                "mean": stored["norm_bn.running_mean"],
                "var": stored["norm_bn.running_var"],
            }
        },
    }
    table = sinusoid_table(np.arange(len(stored["pe"])), options["d_model"])
    assert_close(table, stored["pe"], 1e-6, "pe")

    def embed(variables, norms, train):
        mask = jnp.ones(norms.shape[:2], bool)  # a number's norm is the number
        return model.apply(variables, norms, mask, train=train, mutable=["batch_stats"])

    run = quick_jit(embed, static_argnums=2)
    got, _ = run(variables, given["norms_3"], False)
    assert_close(got, want["eval_initial"], BOUND, "eval_initial")

    def total(scale):
        changed = {**variables, "params": {"scale": scale}}
        return (embed(changed, given["norms_1"], True)[0] * given["cotangent"]).sum()

    gradient = quick_jit(jax.grad(total))(stored["scale"])
    assert_close(gradient, case.arrays["grad"]["scale"], BOUND, "grad scale")
    for step in (1, 2):
        got, after = run(variables, given[f"norms_{step}"], True)
        variables = {**variables, **after}
        assert_close(got, want[f"train_{step}"], BOUND, f"train_{step}")
        statistics = after["batch_stats"]["norm"]
        for ours, theirs in (("mean", "running_mean"), ("var", "running_var")):
            name = f"{theirs}_{step}"
            assert_close(statistics[ours], want[name], BOUND, name)
    got, _ = run(variables, given["norms_3"], False)
    assert_close(got, want["eval"], BOUND, "eval")


@pytest.mark.parametrize(
    ("clusters", "per_channel", "count"),
    [(1, True, 786_002), (2, True, 786_160), (4, True, 786_524), (8, True, 787_444),
     (4, False, 655_197)],
)  # fmt: skip
def test_sizes_of_the_paper(clusters, per_channel, count):
    """Table 1; exact numbers from the official code."""
    model = registry.network("caface_g4_conf512").make(
        num_clusters=clusters, per_channel=per_channel
    )
    features = Features(jnp.zeros((1, 2, 512)), style=jnp.zeros((1, 2, 384, 2)))
    sets = ImageSets(features, jnp.ones((1, 2), bool))
    params = jax.eval_shape(model.init, jax.random.key(0), sets)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


def training_step(model, groups):
    """Every result of an official training step, in its order of calls."""
    sets, half = groups[0].shape[:2]
    mask, parts = jnp.ones((sets, half), bool), []
    for rows in groups:
        features = rows[..., : model.embed_dim]
        statistics = rows[..., model.embed_dim :].reshape(sets, half, -1, 2)
        batch = ImageSets(Features(features, style=statistics), mask)
        parts.append((features, model.style(batch, train=True)))

    def fuse(state, features, style):
        valid = jnp.ones(style.shape[:2], bool)
        state = model.update_styled(state, features, style, valid, train=True)
        return state, model.finalize(state).embeddings

    empty, outputs = model.init_state(sets), {}
    for length in range(2, half + 1, 2):
        for number, part in enumerate(parts, 1):
            _, fused = fuse(empty, *(x[:, :length] for x in part))
            outputs[f"agg{number}_{length}"] = fused
    state, _ = fuse(empty, *parts[0])
    _, outputs["memory_aggregated"] = fuse(state, *parts[1])
    both = (jnp.concatenate(pair, 1) for pair in zip(*parts, strict=True))
    _, outputs["single_aggregated"] = fuse(empty, *both)
    return outputs


def official_losses(outputs, centers):
    """Template and consistency loss; template loss of the prefixes alone.

    The official mean over all prefixes, and its second division by B.
    """
    terms = {name: template_loss(fused, centers) for name, fused in outputs.items()}
    halves = [
        jnp.mean(jnp.stack([v for k, v in terms.items() if k.startswith(f"agg{n}_")]))
        for n in (1, 2)
    ]
    memory, single = outputs["memory_aggregated"], outputs["single_aggregated"]
    whole = [terms["memory_aggregated"], terms["single_aggregated"]]
    template = sum(halves + whole) / 4
    return template, permutation_loss(memory, single) / len(memory), sum(halves) / 2


@pytest.mark.parametrize("case", case_params("caface_cossim"))
def test_cosine_distance(case):
    case = load_case(case)
    given, want = case.arrays["in"], case.arrays["out"]
    x, y = given["x"], given["y"]
    distance = cosine_distance(x, y)
    assert_close(distance, want["loss_rows"], 1e-6, "loss_rows")
    assert_close(1 - distance, want["cos_rows"], 1e-6, "cos_rows")
    assert_close(1 - distance.mean(), want["cos_mean"], 1e-6, "cos_mean")
    assert_close(template_loss(x, y), want["loss_mean"], 1e-6, "loss_mean")
    assert_close(permutation_loss(x, y), want["loss_mean"], 1e-6, "loss_mean")
    grads = jax.grad(permutation_loss, (0, 1))(x, y)
    for name, got in zip("xy", grads, strict=True):
        assert_close(got, case.arrays["grad"][f"in::{name}"], BOUND, f"grad {name}")
    only_x = jax.grad(template_loss)(x, y)
    assert_close(only_x, case.arrays["grad"]["in::x"], BOUND, "grad x, y detached")


@pytest.mark.slow
@pytest.mark.parametrize("case", case_params("caface_losses"))
def test_training_step(case):
    """Gradients through the state of a stream, and the statistics afterward."""
    case = load_case(case)
    given, want = case.arrays["in"], case.arrays["out"]
    model = registry.network("caface_g4_conf512").make(drop_path_rate=0.0)
    variables = import_weights(model, case.arrays["param"])
    centers = given["center"][given["labels"]]

    def total(params):
        outputs, after = model.apply(
            {**variables, "params": params}, (given["group1"], given["group2"]),
            method=training_step, mutable=["batch_stats"],
        )  # fmt: skip
        template, memory, alone = official_losses(outputs, centers)
        losses = dict(
            cos_loss=template,
            mem_loss=memory,
            nomem_total=alone,
            total=template + memory,
        )
        return losses["total"], ({**outputs, **losses}, after)

    function = quick_jit(jax.grad(total, has_aux=True))
    gradients, (outputs, after) = function(variables["params"])
    for name, got in outputs.items():
        assert_close(got, want[name], BOUND, name)
    exported = export_weights(model, {**variables, **after})
    for name, value in want.items():
        if name.startswith("after::"):
            assert_close(exported[name.removeprefix("after::")], value, BOUND, name)
    assert_gradients(export_weights(model, {"params": gradients}), case.arrays)
