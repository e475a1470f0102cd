"""The Pallas kernels beside XLA's paths, on a GPU or TPU.

    python -m benchmarks kernels [--presets small,base --batch-size 128 --pairs 1000]

Attention: one layer with KP-RPE by all ways there are, and training steps and inference
of the same ViT with either of ours, with iRPE and without a bias, images/s. Sinkhorn:
flows of 64 x 64 patches in 100 iterations, pairs/s. What is the same by definition is
compared first, gradients included; what differs is not timed. Appends to
results/kernels.jsonl.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks import harness, vit_position
from kprpe_jax.backbones.vit import PRESETS
from kprpe_jax.commands.options import words
from kprpe_jax.layers.attention import attend
from kprpe_jax.layers.fused_attention import fused_attention
from kprpe_jax.matching.sinkhorn import FAST, Plan, transport
from kprpe_jax.position.buckets import compute_buckets
from kprpe_jax.position.encoding import BiasTables, position_bias
from kprpe_jax.position.lookup import BucketSet, lookup_rows, membership

NETWORKS = {
    "xla": dict(attention="xla"),
    "pallas": dict(attention="pallas"),
    "irpe": vit_position.VARIANTS["irpe"],
    "plain": vit_position.VARIANTS["plain"],
}
DOMAINS = ("kernel", "pallas")
# Of the largest number of a result or gradient: what the kernel's tests allow.
TOLERANCES = {"float32": 1e-5, "bfloat16": 2e-2}


def product_attention(
    q: Array, k: Array, v: Array, tables: BiasTables, buckets: BucketSet
) -> Array:
    """The table of an image read by a product with a 0/1 matrix, as on TPUs."""
    exact = jax.lax.Precision.HIGHEST
    bias = lookup_rows(tables.rows, buckets) + jnp.einsum(
        "bhk,kij->bhij", tables.shared, membership(buckets), precision=exact
    )
    logits = jnp.einsum("bhid,bhjd->bhij", q, k, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(logits + bias).astype(q.dtype)
    return jnp.einsum("bhij,bhjd->bhid", weights, v)


def cudnn_attention(
    q: Array, k: Array, v: Array, tables: BiasTables, buckets: BucketSet
) -> Array:
    """The bias of all pairs, rounded to q's type, handed to cuDNN's kernel."""
    bias = position_bias(tables, buckets).astype(q.dtype)
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    out = jax.nn.dot_product_attention(q, k, v, bias, scale=1.0, implementation="cudnn")
    return out.swapaxes(1, 2)


def layers(dtype: str) -> dict[str, Callable[..., Array]]:
    """Attention with KP-RPE, by name; `xla` is what the others must agree with."""
    ways = {
        "xla": partial(of_projection, partial(attend, key_mask=None)),
        "pallas": fused_attention,
        "product": partial(of_projection, product_attention),
    }
    if jax.default_backend() == "gpu" and dtype != "float32":  # all that cuDNN has
        ways["cudnn"] = partial(of_projection, cudnn_attention)
    return ways


def of_projection(
    way: Callable[..., Array], qkv: Array, tables: BiasTables, buckets: BucketSet
) -> Array:
    """`way`, which takes q, k and v alone, of what a projection writes: as a layer."""
    q, k, v = qkv.transpose(2, 0, 3, 1, 4)  # [B, H, N, d]
    q = q * q.shape[-1] ** -0.5
    return way(q, k, v, tables, buckets).swapaxes(1, 2)


def run_attention(
    batch: int,
    heads: int,
    grid: tuple[int, int],
    width: int,
    *,
    dtype: str,
    rounds: int,
) -> dict[str, dict[str, Any]]:
    """One layer by all ways of `layers`, which must agree.

    Args:
      batch: images a call.
      heads: of attention.
      grid: (rows, columns) of tokens.
      width: channels of a head.
      dtype: compute type, of TOLERANCES; float32 is compared in full precision and
        timed with JAX's setting.
      rounds: timed calls of each.
    Returns: {"forward": ..., "gradient": ...}, each way -> `harness.summarize`.
    Raises: AssertionError: a way whose result or gradient is not that of `xla`.
    """
    rng = np.random.default_rng(0)
    buckets, tokens = compute_buckets(grid), grid[0] * grid[1]
    size = buckets[0].num_buckets

    def draw(*shape: int, dtype: str = "float32") -> Array:
        return jnp.asarray(rng.normal(size=shape), dtype)

    qkv = draw(batch, tokens, 3, heads, width, dtype=dtype)
    weights = draw(batch, tokens, heads, width)
    tables = BiasTables(
        shared=draw(batch, heads, size), rows=draw(1, heads, tokens, size)
    )
    arguments = (qkv, tables)

    def gradient(way: Callable[..., Array], *arguments: Any) -> Any:
        def loss(*arguments: Any) -> Array:
            return (
                way(*arguments, buckets=buckets).astype(jnp.float32) * weights
            ).sum()

        return jax.grad(loss, (0, 1))(*arguments)

    passes = {
        name: {
            "forward": jax.jit(partial(way, buckets=buckets)),
            "gradient": jax.jit(partial(gradient, way)),
        }
        for name, way in layers(dtype).items()
    }
    with jax.default_matmul_precision("highest"):
        results = {
            name: jax.device_get([run(*arguments) for run in both.values()])
            for name, both in passes.items()
        }
    for name, got in results.items():
        pairs = zip(*map(jax.tree.leaves, (got, results["xla"])), strict=True)
        for one, two in pairs:
            one, two = np.asarray(one, np.float32), np.asarray(two, np.float32)
            limit = TOLERANCES[dtype] * np.abs(two).max()
            np.testing.assert_allclose(one, two, rtol=0, atol=limit, err_msg=name)
    summaries = {}
    for mode in ("forward", "gradient"):
        calls = {name: partial(both[mode], *arguments) for name, both in passes.items()}
        seconds = harness.time_variants(
            calls, rounds=rounds, clock=harness.device_clock()
        )
        summaries[mode] = harness.summarize(seconds, baseline="xla", items=batch)
    return summaries


def run_sinkhorn(pairs: int, *, patches: int = 64, rounds: int) -> dict[str, Any]:
    """Flows in both domains, which must agree; `harness.summarize` of each."""
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.2, 1, (2, pairs, patches)).astype(np.float32)
    cost = rng.uniform(0, 1.5, (pairs, patches, patches)).astype(np.float32)
    problem = jax.device_put((cost, *weights / weights.sum(-1, keepdims=True)))
    solve: Callable[..., Plan] = jax.jit(transport, static_argnums=3)
    calls = {
        domain: partial(solve, *problem, FAST._replace(domain=domain))
        for domain in DOMAINS
    }
    want, got = (np.asarray(calls[domain]().flow) for domain in DOMAINS)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * want.max())
    seconds = harness.time_variants(calls, rounds=rounds, clock=harness.device_clock())
    return harness.summarize(seconds, baseline="kernel", items=pairs)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--presets",
        type=words,
        default=["small", "base"],
        help="sizes of the ViT; or none",
    )
    parser.add_argument("--batch-size", type=int, default=128, help="images a call")
    parser.add_argument(
        "--dtypes", type=words, default=["float32", "bfloat16"], help="compute types"
    )
    parser.add_argument("--pairs", type=int, default=1000, help="problems a call; or 0")
    parser.add_argument(
        "--rounds", type=int, default=20, help="timed calls of each variant"
    )


def run(options: argparse.Namespace) -> None:
    """Run, print and record."""
    if jax.default_backend() == "cpu":
        raise ValueError(
            "benchmarks.kernels: on CPUs Pallas kernels are interpreted, which says "
            "nothing of their speed; run this where JAX finds a GPU or TPU."
        )
    results: dict[str, dict[str, Any]] = {}
    for preset in options.presets:
        for dtype in options.dtypes:
            fields = PRESETS[preset]
            heads, patch = fields["num_heads"], fields["patch_size"]
            both = run_attention(
                options.batch_size, heads,
                tuple(side // patch for side in fields["image_size"]),
                fields["width"] // heads,
                dtype=dtype, rounds=options.rounds,
            )  # fmt: skip
            both |= vit_position.measure(
                preset, options.batch_size, NETWORKS, baseline="xla",
                dtype=dtype, rounds=options.rounds,
            )  # fmt: skip
            results |= {f"{preset} {dtype} {mode}": x for mode, x in both.items()}
    if options.pairs:
        results["sinkhorn"] = run_sinkhorn(options.pairs, rounds=options.rounds)
    for title, variants in results.items():
        for name, r in variants.items():
            sys.stdout.write(
                f"{title:27} {name:8} {r['items_per_s']:12.1f} a second  "
                f"time x {r['time_ratio']:.3f}\n"
            )
    settings = dict(
        batch_size=options.batch_size, pairs=options.pairs, rounds=options.rounds
    )
    harness.record("kernels", settings, results)
