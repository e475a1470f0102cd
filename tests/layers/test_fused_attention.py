"""The kernel against the XLA path and against loops; on CPUs it is interpreted."""

import math
import re
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from kprpe_jax.backbones.vit import ViT
from kprpe_jax.layers.fused_attention import fused_attention
from kprpe_jax.layers.fused_kernels import images_per_program
from kprpe_jax.position.buckets import compute_buckets
from kprpe_jax.position.encoding import BiasTables, position_bias
from kprpe_jax.position.lookup import num_buckets
from tests.quick import quick_jit

TABLES = {
    "kprpe": lambda B, H, N, K: dict(shared=(B, H, K), rows=(1, H, N, K)),
    "heads share": lambda B, H, N, K: dict(shared=(B, 1, K), rows=(1, 1, N, K)),
    "absolute": lambda B, H, N, K: dict(shared=(B, H, K)),
    "rpe": lambda B, H, N, K: dict(shared=(1, H, K)),
}


def draw(rng, *, batch=2, heads=2, grid=(3, 4), width=8, kind="kprpe", dtype="float32"):
    """Arguments of the kernel, without the buckets, and its weights in the loss."""
    tokens, size = grid[0] * grid[1], num_buckets(compute_buckets(grid))
    shape = (batch, heads, tokens, width)
    q, k, v, weights = (jnp.asarray(rng.normal(size=shape), dtype) for _ in range(4))
    tables = {
        name: jnp.asarray(rng.normal(size=shape), jnp.float32)
        for name, shape in TABLES[kind](batch, heads, tokens, size).items()
    }
    mask = rng.uniform(size=(batch, tokens)) < 0.7
    mask[:, 0] = True
    return (q, k, v, BiasTables(**tables)), mask, weights


def fused(q, k, v, tables, buckets, mask=None, **options):
    qkv = jnp.stack((q, k, v), 1).transpose(0, 3, 1, 2, 4)  # [B, N, 3, H, d]
    return fused_attention(qkv, tables, buckets, mask, **options).swapaxes(1, 2)


for_tpus = partial(fused, platform="tpu")


def xla_attention(q, k, v, tables, buckets, mask):
    q = q * q.shape[-1] ** -0.5
    logits = jnp.einsum("bhid,bhjd->bhij", q, k, preferred_element_type=jnp.float32)
    logits += position_bias(tables, buckets)
    if mask is not None:
        logits = jnp.where(mask[:, None, None], logits, -jnp.inf)
    weights = jax.nn.softmax(logits).astype(q.dtype)
    return jnp.einsum("bhij,bhjd->bhid", weights, v)


def loop_attention(q, k, v, tables, ids, mask):
    """In float64, one query and key at a time."""
    out = np.zeros(q.shape)
    for b, h, i in np.ndindex(q.shape[:3]):
        logits = np.array([q[b, h, i] @ key for key in k[b, h]], np.float64)
        logits /= np.sqrt(q.shape[-1])
        for j in range(len(logits)):
            logits[j] += (
                tables.rows[0, h, i, ids[i, j]] + tables.shared[b, h, ids[i, j]]
            )
        weights = np.where(mask[b], np.exp(logits - logits.max()), 0)
        out[b, h, i] = weights / weights.sum() @ v[b, h]
    return out


@lru_cache
def compiled(attention, grid):
    """Arguments, mask, weights -> result and gradients."""
    buckets = compute_buckets(grid)

    def loss(arguments, mask, weights):
        out = attention(*arguments, buckets, mask)
        return (out.astype(jnp.float32) * weights).sum(), out

    def run(*arguments):
        gradient, out = jax.grad(loss, has_aux=True)(*arguments)
        return out, *jax.tree.leaves(gradient)

    return quick_jit(run)


def assert_same(arguments, mask, weights, grid, *, tolerance, attention=fused):
    """Result and all gradients, relative to the largest number of each."""
    pair = (
        compiled(way, grid)(arguments, mask, weights)
        for way in (attention, xla_attention)
    )
    for got, want in zip(*pair, strict=True):
        assert got.dtype == want.dtype
        assert got.shape == want.shape
        got, want = (np.asarray(x, np.float64) for x in (got, want))
        peak = np.abs(want).max()
        assert peak > 0.1
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * peak)


def test_equal_to_loops(rng):
    arguments, mask, weights = draw(rng)
    ids = compute_buckets((3, 4))[0].ids
    got = compiled(fused, (3, 4))(arguments, mask, weights)[0]
    want = loop_attention(*jax.tree.map(np.asarray, arguments), ids, mask)
    np.testing.assert_allclose(got, want, atol=2e-6)


@pytest.mark.parametrize(
    "kind",
    [x if x == "kprpe" else pytest.param(x, marks=pytest.mark.slow) for x in TABLES],
)
def test_equal_to_xla(rng, kind):
    drawn = draw(rng, kind=kind)
    assert_same(*drawn, (3, 4), tolerance=2e-6)


def test_equal_to_xla_in_bfloat16(rng):
    """Both round attention and gradients to eight bits, at other places."""
    assert_same(*draw(rng, dtype="bfloat16"), (3, 4), tolerance=2e-2)


@pytest.mark.slow
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("grid", "batch", "heads", "width", "dtype", "tolerance"),
    [
        ((14, 14), 2, 2, 32, "float32", 4e-6),
        ((14, 14), 2, 1, 64, "float32", 6e-6),
        ((14, 14), 2, 2, 32, "bfloat16", 2e-2),
        ((14, 14), 2, 1, 64, "bfloat16", 2e-2),
        ((7, 7), 5, 2, 20, "float32", 4e-6),
        ((1, 17), 4, 3, 4, "float32", 4e-6),
        ((5, 1), 1, 1, 8, "float32", 4e-6),
        ((17, 15), 1, 1, 4, "float32", 4e-6),  # as many as may be, with padding
    ],
)
def test_sizes(rng, grid, batch, heads, width, dtype, tolerance, masked):
    arguments, mask, weights = draw(
        rng, grid=grid, batch=batch, heads=heads, width=width, dtype=dtype
    )
    mask = mask if masked else None
    assert_same(arguments, mask, weights, grid, tolerance=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("grid", "dtype", "tolerance"),
    [
        ((3, 4), "float32", 2e-6),
        ((3, 4), "bfloat16", 2e-2),
        ((14, 14), "float32", 4e-6),
    ],
)
def test_form_for_tpus(rng, grid, dtype, tolerance):
    """On a simulated TPU, which has NaN where nothing was written."""
    drawn = draw(rng, batch=5, grid=grid, dtype=dtype)
    with pltpu.force_tpu_interpret_mode():
        assert_same(*drawn, grid, tolerance=tolerance, attention=for_tpus)


@pytest.mark.parametrize(
    ("batch", "dtype", "programs", "tolerance"),
    [
        pytest.param(8, "float32", (2, 4), 2e-6, marks=pytest.mark.slow),
        pytest.param(16, "bfloat16", (2, 8), 2e-2, marks=pytest.mark.slow),
        pytest.param(9, "bfloat16", (2, 5), 2e-2, marks=pytest.mark.slow),
        (5, "float32", (2, 3), 2e-6),  # padded by one image
    ],
)
def test_several_programs_of_several_images(rng, batch, dtype, programs, tolerance):
    chunk = images_per_program(batch, dtype)
    assert (-(-batch // chunk), chunk) == programs
    drawn = draw(rng, batch=batch, grid=(2, 3), dtype=dtype)
    assert_same(*drawn, (2, 3), tolerance=tolerance)


def test_hidden_keys(rng):
    """They change nothing, whatever they hold; where all are hidden nothing comes."""
    (q, k, v, tables), mask, weights = draw(rng)
    mask[1] = False
    run = compiled(fused, (3, 4))
    out, d_q, d_k, d_v, *_ = first = run((q, k, v, tables), mask, weights)
    hidden = ~mask[:, None, :, None]
    moved = run((q, k + 9 * hidden, v - 9 * hidden, tables), mask, weights)
    for one, two in zip(first, moved, strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.any(d_k * hidden)
    assert not np.any(d_v * hidden)
    assert not np.any(out[1])
    assert not np.any(d_q[1])
    assert all(np.isfinite(x).all() for x in first)


def test_large_logits_and_tables(rng):
    """No overflow, and float32 tables are read whole, not by their first 8 bits."""
    (q, k, v, tables), mask, weights = draw(rng)
    tables = jax.tree.map(lambda x: 1e3 * x, tables)
    q *= 100 * q.shape[-1] ** 0.5
    assert_same((q, k, v, tables), mask, weights, (3, 4), tolerance=1e-4)


@pytest.mark.parametrize(("dtype", "count"), [("float32", 7), ("bfloat16", 0)])
@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_products_are_as_exact_as_the_setting(rng, platform, dtype, count):
    """Two products of q, k and v forward and five backward; others always are exact."""
    arguments, mask, _ = draw(rng, dtype=dtype)
    buckets = compute_buckets((3, 4))

    def loss(*arguments):
        out = fused(*arguments, buckets, mask, platform=platform)
        return out.astype(jnp.float32).sum()

    def of_kernels(setting):
        with jax.default_matmul_precision(setting):
            program = str(jax.make_jaxpr(jax.grad(loss, (0, 1, 2, 3)))(*arguments))
        products = re.findall(r"dot_general\[(.*?)\]\s+\w+ \w+", program, re.DOTALL)
        return [x for x in products if "([], [])" in x]  # those outside have a batch

    assert sum("HIGHEST" in x for x in of_kernels("highest")) == count
    assert not any("HIGHEST" in x for x in of_kernels("default"))


def test_no_images():
    tables = BiasTables(shared=jnp.zeros((1, 2, 49)))
    out = fused_attention(jnp.zeros((0, 12, 3, 2, 8)), tables, compute_buckets((3, 4)))
    assert out.shape == (0, 12, 2, 8)


def test_no_array_of_all_pairs():
    """Neither pass holds [B, H, N, N]; the XLA path does."""
    batch, heads, grid = 8, 2, (14, 14)
    arguments, _, weights = draw(
        np.random.default_rng(0), batch=batch, heads=heads, grid=grid, width=32
    )

    def largest(attention):
        jaxpr = jax.make_jaxpr(
            jax.grad(
                lambda *x: (attention(*x, compute_buckets(grid), None) * weights).sum()
            )
        )(*arguments)
        return max(
            variable.aval.size
            for equation in jaxpr.eqns
            for variable in equation.outvars
        )

    pairs = batch * heads * (grid[0] * grid[1]) ** 2
    assert largest(fused) < pairs / 2
    assert largest(xla_attention) >= pairs


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("lowering", "platform", "call"),
    [("cuda", "gpu", "__gpu$xla.gpu.triton"), ("tpu", "tpu", "tpu_custom_call")],
)
def test_lowers_for_accelerators(rng, lowering, platform, call, dtype):
    """To Triton's and Mosaic's code; whether that runs is not seen here."""
    grid = (14, 14)
    arguments, mask, _ = draw(rng, batch=4, heads=1, grid=grid, width=32, dtype=dtype)

    def loss(q, k, v, tables):
        out = fused(q, k, v, tables, compute_buckets(grid), mask, platform=platform)
        return out.astype(jnp.float32).sum()

    gradient = jax.jit(jax.grad(loss, (0, 1, 2, 3)))
    program = gradient.trace(*arguments).lower(lowering_platforms=(lowering,)).as_text()
    assert program.count(f"@{call}") == 2  # forward and backward
    assert f"{14 * 14}x{14 * 14}" not in program


@pytest.mark.slow
def test_devices_keep_their_images(rng):
    """On eight devices the same; nothing of the batch is gathered, and the gradient of
    the shared table is summed over devices by bucket, not in the kernel's form."""
    grid = (2, 2)
    (q, k, v, tables), mask, weights = draw(rng, batch=8, heads=1, grid=grid)
    mesh = jax.make_mesh((4, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    whole = NamedSharding(mesh, PartitionSpec())
    tables = BiasTables(
        shared=jax.device_put(tables.shared, rows),
        rows=jax.device_put(tables.rows, whole),
    )
    placed = (*jax.device_put((q, k, v), rows), tables)

    def loss(sharding, arguments, mask, weights):
        out = fused(*arguments, compute_buckets(grid), mask, sharding=sharding)
        return (out * weights).sum()

    gradients = []
    for sharding, arguments in ((None, (q, k, v, tables)), (rows, placed)):
        run = quick_jit(jax.grad(lambda *x, s=sharding: loss(s, *x)))
        program = run.lower(arguments, mask, weights).compile()
        gradients.append(program(arguments, mask, weights))
    assert "all-gather" not in program.as_text()
    sums = re.findall(r"= (.*) all-reduce\(", program.as_text())
    shapes = re.findall(r"f32\[([\d,]*)\]", " ".join(sums))
    sizes = [math.prod(map(int, shape.split(","))) for shape in shapes]
    assert sizes == [tables.rows.size]
    for one, two in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(two, one, atol=2e-6)


@pytest.mark.slow
def test_a_network_with_either_is_the_same(rng):
    """Parameters, embeddings and their gradients, masked tokens included."""
    fields = dict(
        image_size=(16, 24), patch_size=8, width=16, depth=1, num_heads=2,
        mlp_ratio=1.0, output_dim=4, mask_ratio=0.3, scan=True,
    )  # fmt: skip
    images = rng.uniform(-1, 1, (2, 16, 24, 3)).astype(np.float32)
    keypoints = rng.uniform(size=(2, 5, 2)).astype(np.float32)
    xla, pallas = (ViT(**fields, attention=name) for name in ("xla", "pallas"))
    shapes, others = (
        jax.eval_shape(model.init, jax.random.key(0), images, keypoints)
        for model in (xla, pallas)
    )
    assert jax.tree.map(lambda x: x.shape, shapes) == jax.tree.map(
        lambda x: x.shape, others
    )
    params = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape), shapes["params"])
    stats = jax.tree.map(lambda x: np.ones(x.shape), shapes["batch_stats"])

    def loss(model, params):
        out, _ = model.apply(
            {"params": params, "batch_stats": stats}, images, keypoints, train=True,
            mutable=["batch_stats"], rngs={"dropout": jax.random.key(1)},
        )  # fmt: skip
        return (out**3).sum()

    results = (
        quick_jit(jax.value_and_grad(lambda p, m=model: loss(m, p)))(params)
        for model in (xla, pallas)
    )
    for want, got in zip(*map(jax.tree.leaves, results), strict=True):
        peak = max(np.abs(want).max(), 0.1)  # some gradients are zero
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * peak)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(tables=BiasTables()), "a position encoding whose bias is a table"),
        (dict(tables=BiasTables(rows=jnp.zeros((2, 1, 4, 49)))), "factorized"),
        (dict(tables=BiasTables(context_k=jnp.zeros((1, 8, 49)))), "attention 'xla'"),
        (dict(buckets=compute_buckets((2, 2), "cross")), "of the method 'product'"),
        (dict(buckets=compute_buckets((2, 2), "euclidean")), "the method 'product'"),
        (dict(tokens=17 * 16), "at most 256 tokens on chip; got 272"),
        (dict(buckets=compute_buckets((33, 1))), "pads 33 x 1 tokens to 64 x 16 and"),
        (dict(platform="rocm"), "run on cpu, gpu, tpu; got 'rocm'"),
    ],
)
def test_what_the_kernel_does_not_read(change, message):
    qkv = jnp.zeros((2, change.pop("tokens", 4), 3, 1, 8))
    options = dict(
        tables=BiasTables(shared=jnp.zeros((2, 1, 49))), buckets=compute_buckets((2, 2))
    )
    with pytest.raises(ValueError, match=message):
        fused_attention(qkv, **(options | change))


def test_unknown_implementation():
    with pytest.raises(ValueError, match="unknown attention 'cudnn'; use one of"):
        ViT((16, 16), 8, 8, 1, 1, 1.0, 4, attention="cudnn").init(
            jax.random.key(0), jnp.zeros((1, 16, 16, 3)), jnp.zeros((1, 5, 2))
        )
