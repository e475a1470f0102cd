"""Margins and class centers against stored outputs of the official code.

Values are relative to the largest of each array, as in test_vit. The official code
passes the gradient around the margin and lets the angle leave [0, pi].
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.core.mesh import make_mesh
from kprpe_jax.core.unit import unit
from kprpe_jax.losses.adaface import NormStatistics, image_quality
from kprpe_jax.losses.class_centers import margin_softmax
from kprpe_jax.losses.class_sampling import Shuffle, num_slots, sample_rows
from kprpe_jax.losses.curricularface import move_target_mean
from kprpe_jax.losses.margin import clip_cosine, make_margin, margin_logits
from tests.golden.golden import assert_close, case_params, load_case
from tests.meshes import mesh_of
from tests.quick import quick_jit

pytestmark = pytest.mark.golden

BOUND = 1e-5
OFFICIAL = dict(gradient="identity", angle="free")
MARGINS = {"adaface": 0.4, "arcface": 0.5, "cosface": 0.4}


@pytest.mark.parametrize("filtered", ["", "_filtered"])
@pytest.mark.parametrize("case", case_params("margin_"))
def test_logits_and_gradient(case, filtered):
    loaded = load_case(case)
    options, given, want = (
        loaded.options,
        *map(loaded.arrays.get, ("in", "out")),
    )
    drop = options["filter_threshold_of_the_filtered_outputs"] if filtered else None
    margin = make_margin(
        options["loss"],
        margin=MARGINS[options["loss"]],
        scale=options["s"],
        drop_above=drop,
        **OFFICIAL,
    )
    quality = 0.0
    if options["loss"] == "adaface":
        before = NormStatistics(given["batch_mean"][0], given["batch_std"][0])
        # A vector of one number has that number as its norm.
        quality, after = image_quality(given["norms"], before)
        quality = quality[:, None]
        for name, value in zip(("mean", "std"), after, strict=True):
            stored = want[f"batch_{name}_after{filtered}"][0]
            np.testing.assert_allclose(value, stored, rtol=1e-6)
    is_target = np.arange(given["cos"].shape[1]) == given["labels"][:, None]

    def total(cosine):
        logits = margin_logits(clip_cosine(cosine), is_target, margin, quality)
        return (logits * given["cotangent"]).sum(), logits

    gradient, logits = jax.grad(total, has_aux=True)(jnp.asarray(given["cos"]))
    assert_close(logits, want[f"logits{filtered}"], BOUND, "logits")
    stored = loaded.arrays["grad"][f"in::cos{filtered}"]
    assert_close(gradient, stored, BOUND, "gradient")


def by_rank(arrays, name, world):
    """An array of all ranks, one after the other; None where none has it."""
    prefixes = [f"rank{rank}_" for rank in range(world)] if world > 1 else [""]
    parts = [arrays.get(prefix + name) for prefix in prefixes]
    return None if parts[0] is None else np.concatenate(parts)


def replayed(loaded, n, world):
    """The official sample: rows of all centers, and whose they are, padded alike.

    Ranks may keep different numbers; a shard_map wants one: the rest is unused.
    """
    prefixes = [f"rank{rank}_" for rank in range(world)] if world > 1 else [""]
    out = loaded.arrays["out"]
    parts = [out[f"{prefix}sampled_index_step{n}"] for prefix in prefixes]
    size = max(map(len, parts))
    local = len(by_rank(loaded.arrays["param"], "weight", world)) // world
    rows, classes = [], []
    for rank, part in enumerate(parts):
        unused = np.setdiff1d(np.arange(local), part)[: size - len(part)]
        rows += [*(part + rank * local), *(unused + rank * local)]
        classes += [*(part + rank * local), *[-1] * len(unused)]
    return np.array(rows), np.array(classes, np.int32)


@pytest.mark.parametrize("case", [*case_params("fc_"), *case_params("partial_fc_")])
def test_two_steps(case):
    loaded = load_case(case)
    options = loaded.options
    world, rate = options.get("world_size", 1), options.get("sample_rate", 1.0)
    read = {
        kind: partial(by_rank, loaded.arrays[kind], world=world)
        for kind in ("param", "in", "out")
    }
    centers = read["param"]("weight")
    kind = options["margin"]
    mesh = make_mesh(
        {"data": 1, "fsdp": 1, "class": world}, devices=jax.devices()[:world]
    )
    loss_options = dict(
        margin=make_margin(kind, margin=MARGINS[kind], **OFFICIAL),
        # The official code rounds the number of classes up and trains the rest, too.
        num_classes=len(centers),
        mesh=mesh,
        probability_floor=1e-30 if "partial" in case else 0.0,
    )
    statistics = None
    if kind == "adaface":
        statistics = NormStatistics(
            *(read["param"](f"batch_{name}")[0] for name in ("mean", "std"))
        )

    @quick_jit
    def step(embeddings, centers, labels, classes, statistics):
        def loss(embeddings, centers):
            quality, after = None, statistics
            if statistics is not None:
                quality, after = image_quality(embeddings, statistics)
            result = margin_softmax(
                embeddings,
                centers,
                labels,
                quality=quality,
                classes=classes,
                **loss_options,
            )
            return result.loss, after

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(embeddings, centers)

    for n in (0, 1):
        embeddings = read["in"](f"embeddings_step{n}")
        labels, classes, taken = read["in"](f"labels_step{n}"), None, slice(None)
        if rate < 1:
            taken, classes = replayed(loaded, n, world)
        (loss, after), gradients = step(
            embeddings, centers[taken], labels, classes, statistics
        )
        stored = read["out"](f"loss_step{n}")[0]
        np.testing.assert_allclose(loss, stored, rtol=BOUND)
        if statistics is not None:
            statistics = after
            for name, value in zip(("mean", "std"), after, strict=True):
                stored = read["out"](f"batch_{name}_after_step{n}")[0]
                np.testing.assert_allclose(value, stored, rtol=1e-6)
        weights = by_rank(loaded.arrays["grad"], f"weight_step{n}", world)
        centers_gradient = np.zeros_like(centers)
        centers_gradient[taken] = gradients[1]
        assert_close(centers_gradient, weights, BOUND, f"centers, step {n}")
        stored = [
            loaded.arrays["grad"][f"in::{prefix}embeddings_step{n}"]
            for prefix in ([f"rank{r}_" for r in range(world)] if world > 1 else [""])
        ]
        # Each official rank multiplies by the world size, for a later mean over ranks.
        for row, wanted in zip(
            world * np.asarray(gradients[0]), np.concatenate(stored), strict=True
        ):
            assert_close(row, wanted, BOUND, f"embeddings, step {n}")


@pytest.mark.parametrize("case", case_params("partial_fc_sampled"))
def test_sampled_rows(case):
    """Which classes: those of the batch, then the others by their noise."""
    loaded = load_case(case)
    given, want = loaded.arrays["in"], loaded.arrays["out"]
    rows = int(want["num_local"][0])
    for n in (0, 1):
        labels = given[f"labels_step{n}"]
        noise = given.get(f"perm_step{n}", np.zeros(rows, np.float32))
        keep = int(want["num_sample"][0])
        slots = num_slots(rows, loaded.options["sample_rate"], len(labels))
        order = np.argsort(-noise, kind="stable").astype(np.int32)
        place = jnp.asarray(np.argsort(order))
        shuffle = Shuffle(jnp.asarray(order).__getitem__, place.__getitem__)
        chosen = sample_rows(shuffle, labels, count=rows, keep=keep, slots=slots)
        index = want[f"sampled_index_step{n}"]
        np.testing.assert_array_equal(np.sort(chosen.rows[chosen.kept]), index)
        assert chosen.overflow == max(len(index) - keep, 0)
        cosine = (
            unit(given[f"embeddings_step{n}"])
            @ unit(jnp.asarray(loaded.arrays["param"]["weight"][index])).T
        )
        assert_close(cosine, want[f"cos_step{n}"], BOUND, "cosines")


@pytest.mark.parametrize("case", case_params("curricularface"))
def test_curricularface(case):
    """Logits, gradients and t of two calls; the loss and t of the sharded softmax."""
    loaded = load_case(case)
    given, want = loaded.arrays["in"], loaded.arrays["out"]
    options, kernel = loaded.options, loaded.arrays["param"]["kernel"]
    scale, labels = options["s"], given["labels"]
    # As official beyond pi; the gradient is exact there, too.
    margin = make_margin(
        "curricularface", margin=options["m"], scale=scale, angle="linear"
    )
    classes = kernel.shape[1]
    is_target = np.arange(classes) == labels[:, None]
    softmax = partial(
        margin_softmax, margin=margin, num_classes=classes, mesh=mesh_of(1, 1, 1)
    )

    def total(features, kernel, t):
        cosine = clip_cosine(unit(features) @ unit(kernel.T).T)
        own = jnp.where(is_target, cosine, 0).sum()
        after = move_target_mean(t, own, len(labels))
        logits = margin_logits(cosine, is_target, margin, target_mean=after)
        loss = softmax(features, kernel.T, labels, target_mean=t)
        return (logits * given["cotangent"]).sum(), (logits, scale * cosine, loss)

    step = quick_jit(jax.grad(total, (0, 1), has_aux=True))
    t = loaded.arrays["param"]["t"][0]
    for call in ("", "second::"):
        gradients, (logits, origin, loss) = step(given["features"], kernel, t)
        assert_close(logits, want[f"{call}logits"], BOUND, f"{call}logits")
        after, stored = loss.target_mean, want[f"{call}after::t"]
        np.testing.assert_allclose(after, stored[0], rtol=BOUND)
        logs = np.float64(want[f"{call}logits"])
        peak = logs.max(1, keepdims=True)
        sums = np.log(np.exp(logs - peak).sum(1)) + peak[:, 0]
        wanted = (sums - logs[is_target]).mean()
        np.testing.assert_allclose(loss.loss, wanted, rtol=BOUND)
        if not call:
            assert_close(origin, want["origin_logits"], BOUND, "cosines")
            stored = loaded.arrays["grad"]
            assert_close(gradients[0], stored["in::features"], BOUND, "features")
            assert_close(gradients[1], stored["kernel"], BOUND, "kernel")
        t = after
