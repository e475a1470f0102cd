"""Sinkhorn in the kernel domain in one Pallas kernel, for small problems.

The matrices of a few problems stay on chip through all iterations, which otherwise read
them from memory twice each. All sums are of float32 products, on no matrix unit.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl

from kprpe_jax.layers.pallas_launch import launch_options, pad_ends, power_of_two
from kprpe_jax.layers.platforms import kernel_platform
from kprpe_jax.matching.sinkhorn import LEAST_SUM

MOST_PATCHES = 128  # a side: a matrix of 64 KiB, which the registers of a GPU hold
_LEAST = 16


def scale_on_chip(
    kernel: Array,
    start: Array,
    a: Array,
    b: Array,
    *,
    iterations: int,
    platform: str | None = None,
) -> Array:
    """Scale rows and columns of matrices until their sums are a and b.

    Args:
      kernel: float32 [P, N, M], exp(-cost / epsilon) of P problems.
      start: float32 [P, N], the first scaling of the rows, positive.
      a: float32 [P, N], positive.
      b: float32 [P, M], positive.
      iterations: each fits the columns, then the rows.
      platform: `gpu` (Triton), `tpu` (Mosaic) or `cpu` (interpreted, slow); None = the
        one that JAX computes on.
    Returns: float32 [P, N, M]; it has no gradient.
    Raises: ValueError: more than MOST_PATCHES rows or columns.
    """
    count, *sizes = kernel.shape
    if max(sizes) > MOST_PATCHES:
        raise ValueError(
            f"Solver: domain 'pallas' keeps at most {MOST_PATCHES} patches a side on "
            f"chip; got {sizes[0]} and {sizes[1]} (with the rest of unequal='partial');"
            " use domain='kernel'."
        )
    if not count:
        return kernel
    platform = platform or kernel_platform()
    # A GPU has a program for each problem at once; a TPU runs one after the other, and
    # waits less for sums where a program has several.
    together = 1 if platform == "gpu" else math.gcd(count, 8)
    rows, columns = (power_of_two(size, _LEAST) for size in sizes)
    arguments = (
        pad_ends(kernel, (1, rows), (2, columns)),
        *(pad_ends(x[:, :, None], (1, rows)) for x in (start, a)),
        pad_ends(b[:, None], (2, columns)),
    )
    blocks = [pl.BlockSpec((together, *x.shape[1:]), _nth) for x in arguments]
    flow = pl.pallas_call(
        functools.partial(_scale, iterations=iterations),
        out_shape=jax.ShapeDtypeStruct(arguments[0].shape, jnp.float32),
        grid=(count // together,),
        in_specs=blocks,
        out_specs=blocks[0],
        cost_estimate=pl.CostEstimate(
            flops=4 * iterations * count * rows * columns,
            transcendentals=0,
            bytes_accessed=2 * 4 * count * rows * columns,
        ),
        **launch_options(
            platform,
            parallel_axes=1,
            num_warps=4 if rows * columns <= 64 * 64 else 8,
        ),
    )(*arguments)
    return flow[:, : sizes[0], : sizes[1]]


def _nth(program: Array) -> tuple[Array, int, int]:
    return program, 0, 0


def _scale(kernel_ref, start_ref, a_ref, b_ref, flow_ref, *, iterations: int):
    kernel, a, b = kernel_ref[...], a_ref[...], b_ref[...]  # [p, N, M], N x 1, 1 x M

    def step(_: Array, scalings: tuple[Array, Array]) -> tuple[Array, Array]:
        u, _ = scalings
        v = _fit(b, (u * kernel).sum(1, keepdims=True))
        # Its scale cancels in u; where totals differ it would grow with every round.
        v = v / v.max(2, keepdims=True)
        return _fit(a, (kernel * v).sum(2, keepdims=True)), v

    u, v = jax.lax.fori_loop(0, iterations, step, (start_ref[...], b))
    flow_ref[...] = u * kernel * v


def _fit(weights: Array, sums: Array) -> Array:
    """Scalings that make these sums the weights; 0 for padding, whose weight is 0."""
    return weights / jnp.where(weights == 0, 1.0, jnp.maximum(sums, LEAST_SUM))
