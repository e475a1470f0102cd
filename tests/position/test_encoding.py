from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.position.buckets import compute_buckets, patch_centers
from kprpe_jax.position.encoding import PAPER, BiasTables, PositionBias, position_bias
from kprpe_jax.position.keypoint_bias import (
    direct_table,
    keypoint_bias,
    keypoint_table,
)
from tests.quick import quick_jit

LAYERS, HEADS, HEAD_DIM, BATCH = 3, 2, 4, 2
RELATIVE = ("kprpe_relative", "kprpe_multihead")


def make(position="kprpe_multihead", *, seed=0, **fields):
    """A module, random weights of the size of trained ones, and keypoints."""
    fields = dict(grid=(3, 4), num_keypoints=3) | fields
    module = PositionBias(position, LAYERS, HEADS, HEAD_DIM, **fields)
    rng = np.random.default_rng(seed)
    shape = (BATCH, fields["num_keypoints"], 2)
    keypoints = rng.uniform(-0.2, 1.2, shape).astype(np.float32)
    params = jax.tree.map(
        lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32),
        jax.eval_shape(module.init, jax.random.key(0), keypoints),
    )
    return module, params, keypoints


def stacked_bias(module, params, keypoints):
    """B of all layers: [layers, B or 1, H', N, N]."""
    tables = module.apply(params, keypoints)
    return jnp.stack(
        [position_bias(tables.layer(n), module.buckets) for n in range(LAYERS)]
    )


def biases(module, params, keypoints):
    """The same, compiled."""
    return quick_jit(partial(stacked_bias, module))(params, keypoints)


def loops(module, params, keypoints):
    """Eq. 8-11, one number at a time."""
    kernel, offset = (params["params"][name] for name in ("kernel", "bias"))
    rows, columns = module.grid
    size = rows * columns
    heads = kernel.shape[2]
    out = np.zeros((LAYERS, BATCH, heads, size, size))
    for layer in range(LAYERS):
        table = layer if module.per_layer else 0
        for b in range(BATCH):
            for h in range(heads):
                for i in range(size):
                    center = (
                        (i % columns + 0.5) / columns,
                        (i // columns + 0.5) / rows,
                    )
                    for j in range(size):
                        start = 0
                        for part in module.buckets:
                            k = start + part.ids[i, j]
                            value = offset[table, h, k]
                            for p in range(module.num_keypoints):
                                for axis in (0, 1):
                                    d = keypoints[b, p, axis]
                                    if module.position in RELATIVE:
                                        d = center[axis] - d
                                    value += d * kernel[2 * p + axis, table, h, k]
                            out[layer, b, h, i, j] += value
                            start += part.num_buckets
    return out * (HEAD_DIM**-0.5 if module.scale_bias else 1.0)


@pytest.mark.parametrize("position", ["kprpe_absolute", *RELATIVE])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        dict(per_layer=False, scale_bias=False),
        dict(method="cross", grid=(2, 5), ratio=1.2),
    ],
    ids=["default", "shared", "cross"],
)
def test_forms_equal_loops(position, fields):
    module, params, keypoints = make(position, **fields)
    got = biases(module, params, keypoints)
    want = loops(module, params, keypoints)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-6)


def test_one_call_equals_loops():
    module, params, keypoints = make(method="cross", scale_bias=False)
    kernel, offset = (params["params"][name] for name in ("kernel", "bias"))
    run = quick_jit(partial(keypoint_bias, grid=[3, 4], method="cross"))
    want = loops(module, params, keypoints)
    layers = run(kernel, offset, keypoints)
    np.testing.assert_allclose(layers, want, rtol=1e-5, atol=2e-6)
    one = run(kernel[:, 1], offset[1], keypoints)
    assert one.shape == (BATCH, HEADS, 12, 12)
    np.testing.assert_allclose(one, want[1], rtol=1e-5, atol=2e-6)
    with pytest.raises(ValueError, match=r"with 49 buckets here; got \(6, 2, 14\) and"):
        keypoint_bias(kernel[:, 1], offset[1], keypoints, (3, 4))


@pytest.mark.parametrize("position", RELATIVE)
@pytest.mark.parametrize(
    "fields",
    [
        {},
        dict(num_keypoints=17, grid=(8, 8)),
        dict(num_keypoints=98, grid=(2, 7), ratio=2.7),
        dict(method="cross", grid=(5, 3)),
        dict(method="euclidean", per_layer=False),
    ],
    ids=["default", "k17", "k98", "cross", "euclidean"],
)
def test_factorized_equals_direct(position, fields):
    """Values and gradients agree to 1e-5 of the largest value, as promised."""
    module, params, keypoints = make(position, **fields)
    rng = np.random.default_rng(1)
    shape = jax.eval_shape(lambda: stacked_bias(module, params, keypoints)).shape
    cotangent = rng.normal(size=shape)

    def run(factorized):
        clone = module.clone(factorized=factorized)

        def weighted(params, keypoints):
            bias = stacked_bias(clone, params, keypoints)
            return (bias * cotangent).sum(), bias

        graded = jax.value_and_grad(weighted, (0, 1), has_aux=True)
        (_, bias), gradients = quick_jit(graded)(params, keypoints)
        return bias, gradients

    for one, two in zip(*map(jax.tree.leaves, (run(True), run(False))), strict=True):
        peak = float(jnp.abs(two).max())
        assert peak > 0
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-5 * peak)


@pytest.mark.parametrize(
    "fields", [{}, dict(factorized=False), dict(position="kprpe_absolute")]
)
def test_places_are_not_rounded(fields):
    """Accelerators would round the factors of products, and of their gradients."""
    module, params, keypoints = make(**fields)

    def total(params, keypoints):
        return sum(x.sum() for x in jax.tree.leaves(module.apply(params, keypoints)))

    program = jax.jit(jax.grad(total, (0, 1))).lower(params, keypoints).as_text()
    products = [line for line in program.splitlines() if "dot_general" in line]
    assert products
    assert all("[HIGHEST, HIGHEST]" in line for line in products)


def test_per_layer_tables_differ_and_shared_ones_do_not():
    for per_layer in (True, False):
        module, params, keypoints = make(per_layer=per_layer)
        assert params["params"]["kernel"].shape[1] == (LAYERS if per_layer else 1)
        first, second = np.asarray(biases(module, params, keypoints))[:2]
        assert np.array_equal(first, second) != per_layer


def test_heads_share_in_the_relative_form_only():
    for position, heads in (("kprpe_relative", 1), ("kprpe_multihead", HEADS)):
        module, params, keypoints = make(position)
        assert biases(module, params, keypoints).shape[2] == heads


def test_scalar_form_is_one_number_per_image():
    module, params, keypoints = make("kprpe_scalar")
    bias = biases(module, params, keypoints)
    np.testing.assert_array_equal(bias, jnp.broadcast_to(bias[..., :1, :1], bias.shape))
    assert len(np.unique(bias[0])) == BATCH


@pytest.mark.parametrize("per_head", [True, False])
def test_rpe_reads_its_table(per_head):
    module, params, _ = make("rpe", per_head=per_head, scale_bias=False)
    table = params["params"]["table"]
    (buckets,) = module.buckets
    got = biases(module, params, None)
    np.testing.assert_allclose(got[:, 0], table[..., buckets.ids], rtol=1e-6)
    assert got.shape[2] == (HEADS if per_head else 1)


@pytest.mark.parametrize("context", ["k", "qkv", "v"])
def test_irpe_has_the_tables_it_names(context):
    _, params, _ = make("irpe", context=context)
    assert set(params["params"]) == {f"table_{letter}" for letter in context}


def test_scale_divides_by_root_of_head_dim():
    module, params, keypoints = make(**PAPER)
    plain = biases(module.clone(scale_bias=False), params, keypoints)
    np.testing.assert_allclose(
        biases(module, params, keypoints), plain / np.sqrt(HEAD_DIM), rtol=1e-5
    )


def test_hidden_form_equals_numpy():
    """The released `_v2` forms: linear, ReLU, layer norm, linear."""
    module, params, keypoints = make(hidden_dim=8, scale_bias=False)
    p = params["params"]
    relative = patch_centers(module.grid)[None, :, None] - keypoints[:, None]
    x = relative.reshape(BATCH, 12, -1) @ p["hidden"]["kernel"] + p["hidden"]["bias"]
    x = np.maximum(x, 0)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    x = x * p["norm"]["scale"] + p["norm"]["bias"]
    table = np.einsum("bnc,clhk->lbhnk", x, p["out"]["kernel"])
    table += p["out"]["bias"][:, None, :, None]
    (buckets,) = module.buckets
    rows = np.arange(12)[:, None]
    want = table[..., rows, buckets.ids]
    got = biases(module, params, keypoints)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_keypoint_gradient_can_be_stopped():
    for stop in (True, False):
        module, params, keypoints = make(stop_keypoint_gradient=stop)
        total = lambda p, k, m=module: stacked_bias(m, p, k).sum()  # noqa: E731
        gradient = quick_jit(jax.grad(total, 1))(params, keypoints)
        assert (float(jnp.abs(gradient).max()) == 0.0) == stop


@pytest.mark.parametrize("position", ["rpe", "irpe", "kprpe_absolute", *RELATIVE])
def test_every_table_starts_at_zero(position):
    module, _, keypoints = make(position)
    params = quick_jit(module.init)(jax.random.key(1), keypoints)
    assert all(not leaf.any() for leaf in jax.tree.leaves(params))


def test_errors():
    for position in ("kprpe_multhead", "none"):
        with pytest.raises(ValueError, match=f"unknown position '{position}'; use one"):
            make(position)
    for context in ("K", "x", "", "kk"):
        with pytest.raises(ValueError, match=f"q, k and v; got '{context}'; the pap"):
            make("irpe", context=context)
    module, params, keypoints = make()
    for wrong in (None, keypoints[:, :2], keypoints[0]):
        with pytest.raises(ValueError, match=r"needs keypoints \[B, 3, 2\]; got"):
            module.apply(params, wrong)


@pytest.mark.parametrize("function", [keypoint_table, direct_table])
def test_a_kernel_is_for_a_number_of_keypoints(function):
    kernel, few = jnp.zeros((6, 1, 1, 49)), jnp.zeros((2, 2, 2))
    arguments = dict(bias=kernel[0], centers=patch_centers((2, 2)))
    if function is keypoint_table:
        arguments = {}
    with pytest.raises(ValueError, match=r"2K = 6 rows; got \(2, 2, 2\); give a"):
        function(kernel, keypoints=few, **arguments)


def test_layers_of_tables():
    tables = BiasTables(shared=jnp.arange(3.0).reshape(3, 1))
    assert tables.layer(2).shared.item() == 2.0
    shared = BiasTables(shared=jnp.ones((1, 4)))
    np.testing.assert_array_equal(shared.layer(2).shared, jnp.ones(4))
    assert shared.stacked(5).shared.shape == (5, 4)
    assert tables.rows is None
    assert position_bias(BiasTables(), compute_buckets((2, 2))) == 0.0
