"""Pallas kernels of attention with a bias by bucket: forward and backward.

A program has the queries of one row of the token grid beside all keys, so that whole
rows of logits are on chip: softmax needs no running maximum, and the backward pass
keeps nothing but the inputs. `kernel_tables` reads the bias of those queries and sums
its gradient.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as pltriton
from jax.typing import DTypeLike

from kprpe_jax.layers.kernel_tables import Loads, Products
from kprpe_jax.layers.pallas_launch import launch_options

_HIDDEN = -1e30  # a logit that no query may have; finite, as rows may be all hidden
_TINY = 1e-30


def attend(
    q: Array,
    k: Array,
    v: Array,
    shared: Array,
    own: Array,
    visible: Array,
    columns: Array,
    platform: str,
) -> Array:
    """softmax(q k' + T) v.

    Sizes are padded: B images (`images_per_program`), P queries and keys in a row of
    the grid, M keys (a multiple of P), D columns of the tables (another).

    Args:
      q: [B, H, R, P, d], scaled.
      k, v: [B, H, M, d].
      shared: float32 [H, R, P, D], part of T that all images share.
      own: float32 [B, H, P, D], part of an image, the same in all rows of the grid.
      visible: float32 [B, 1, M], 1 where queries may look, else 0.
      columns: int32 [R, 1, M], column of the tables that queries of a row read for a
        key; any for padding, which `visible` hides.
      platform: of `pallas_launch`.
    Returns: [B, H, R, P, d] in q's type; zeros where all keys are hidden.
    """
    batch, heads, rows, pitch, width = q.shape
    keys, depth = k.shape[2], shared.shape[-1]
    chunk = images_per_program(batch, q.dtype)
    in_row = pl.BlockSpec(
        (chunk, None, None, pitch, width), lambda h, c, y: (c, h, y, 0, 0)
    )
    whole = pl.BlockSpec((chunk, None, keys, width), lambda h, c, y: (c, h, 0, 0))
    arguments = (q, k, v, shared, own, visible, columns)
    result = jax.ShapeDtypeStruct(q.shape, q.dtype)
    access = _access(platform, pitch, depth, q.dtype)
    return pl.pallas_call(
        functools.partial(_forward, access=access),
        out_shape=result,
        grid=(heads, batch // chunk, rows),
        in_specs=[
            in_row,
            whole,
            whole,
            pl.BlockSpec((None, None, pitch, depth), lambda h, c, y: (h, y, 0, 0)),
            pl.BlockSpec((chunk, None, pitch, depth), lambda h, c, y: (c, h, 0, 0)),
            pl.BlockSpec((chunk, 1, keys), lambda h, c, y: (c, 0, 0)),
            pl.BlockSpec((None, 1, keys), lambda h, c, y: (y, 0, 0)),
        ],
        out_specs=in_row,
        cost_estimate=_cost(*arguments, result, products=2, access=access, uses=1),
        **launch_options(platform, parallel_axes=3),
    )(*arguments)


def attend_backward(
    q: Array,
    k: Array,
    v: Array,
    shared: Array,
    own: Array,
    visible: Array,
    columns: Array,
    cotangent: Array,
    platform: str,
) -> tuple[Array, Array, Array, Array, Array]:
    """Gradients of `attend` to q, k, v and both parts of T.

    A program has one head of several images and goes through all rows of the grid. It
    alone adds to its part of the shared table; the parts are summed afterwards. So no
    sum depends on the order in which programs run.
    """
    batch, heads, rows, pitch, width = q.shape
    keys, depth = k.shape[2], shared.shape[-1]
    chunk = images_per_program(batch, q.dtype)
    queries = pl.BlockSpec(
        (chunk, None, rows, pitch, width), lambda h, c: (c, h, 0, 0, 0)
    )
    whole = pl.BlockSpec((chunk, None, keys, width), lambda h, c: (c, h, 0, 0))
    by_image = pl.BlockSpec((chunk, None, pitch, depth), lambda h, c: (c, h, 0, 0))
    part = (batch // chunk, *shared.shape)
    arguments = (q, k, v, shared, own, visible, columns, cotangent)
    results = [
        *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (q, k, v)),
        jax.ShapeDtypeStruct(part, jnp.float32),
        jax.ShapeDtypeStruct(own.shape, jnp.float32),
    ]
    access = _access(platform, pitch, depth, q.dtype)
    d_q, d_k, d_v, d_shared, d_own = pl.pallas_call(
        functools.partial(_backward, access=access, on_gpu=platform == "gpu"),
        out_shape=results,
        grid=(heads, batch // chunk),
        in_specs=[
            queries,
            whole,
            whole,
            pl.BlockSpec((None, rows, pitch, depth), lambda h, c: (h, 0, 0, 0)),
            by_image,
            pl.BlockSpec((chunk, 1, keys), lambda h, c: (c, 0, 0)),
            pl.BlockSpec((rows, 1, keys), lambda h, c: (0, 0, 0)),
            queries,
        ],
        out_specs=[
            queries,
            whole,
            whole,
            pl.BlockSpec(
                (None, None, rows, pitch, depth), lambda h, c: (c, h, 0, 0, 0)
            ),
            by_image,
        ],
        cost_estimate=_cost(*arguments, *results, products=5, access=access, uses=2),
        **launch_options(platform, parallel_axes=2),
    )(*arguments)
    return d_q, d_k, d_v, d_shared.sum(0), d_own


def images_per_program(batch: int, dtype: DTypeLike) -> int:
    """Images that share what a program reads for all of them.

    The gradient of the shared table exists once per program. There are as few programs
    as at most 8 images each (4 of float32) allow, and of those the smallest; the batch
    is padded to a multiple of this.
    """
    programs = -(-batch // (8 if jnp.dtype(dtype).itemsize == 2 else 4))
    return -(-batch // programs)


def _access(
    platform: str, pitch: int, depth: int, dtype: DTypeLike
) -> Loads | Products:
    if platform == "tpu":
        return Products(depth, pieces=2 if jnp.dtype(dtype).itemsize == 2 else 3)
    return Loads(pitch, depth)


def _cost(
    *arrays: Array | jax.ShapeDtypeStruct,
    products: int,
    access: Loads | Products,
    uses: int,
) -> pl.CostEstimate:
    """Of so many products over channels and uses of the tables, for XLA.

    `arrays` are all that a kernel reads and writes, from q, k, v and `shared` on.
    """
    (*queries, width), keys, depth = (arrays[i].shape for i in (0, 1, 3))
    pairs = math.prod(queries) * keys[2]
    pieces = access.pieces if isinstance(access, Products) else 0
    return pl.CostEstimate(
        flops=2 * pairs * (products * width + uses * pieces * depth[-1]),
        transcendentals=pairs,
        bytes_accessed=sum(x.size * x.dtype.itemsize for x in arrays),
    )


def _forward(
    q_ref, k_ref, v_ref, shared_ref, own_ref, visible_ref, columns_ref, out_ref, *,
    access: Loads | Products,
):  # fmt: skip
    columns = access.prepare(columns_ref[...])

    def image(b: Array, _: None) -> None:
        v = v_ref[b]
        bias = access.read(columns, (shared_ref,), (own_ref, b))
        weights = _weights(q_ref[b], k_ref[b], bias, visible_ref[b])
        out_ref[b] = _dot(weights.astype(v.dtype), v).astype(out_ref.dtype)

    jax.lax.fori_loop(0, q_ref.shape[0], image, None)


def _backward(
    q_ref, k_ref, v_ref, shared_ref, own_ref, visible_ref, columns_ref, cotangent_ref,
    d_q_ref, d_k_ref, d_v_ref, d_shared_ref, d_own_ref, *, access: Loads | Products,
    on_gpu: bool,
):  # fmt: skip
    num_rows, pitch, depth = shared_ref.shape
    spans = [pl.ds(start, access.span) for start in range(0, depth, access.span)]

    def image(b: Array, _: None) -> None:
        visible = visible_ref[b]

        def row(y: Array, sums: tuple[Any, ...]) -> tuple[Any, ...]:
            d_k, d_v, d_own = sums
            # Keys are read again for each row: kept, they would not fit on GPUs.
            q, k, v = q_ref[b, y], k_ref[b], v_ref[b]
            cotangent = cotangent_ref[b, y]
            columns = access.prepare(columns_ref[y])
            bias = access.read(columns, (shared_ref, y), (own_ref, b))
            weights = _weights(q, k, bias, visible)
            d_v += _dot(weights.astype(v.dtype), cotangent, (0, 0))
            d_weights = _dot(cotangent, v, (1, 1))
            mean = (weights * d_weights).sum(1, keepdims=True)
            d_logits = weights * (d_weights - mean)
            rounded = d_logits.astype(k.dtype)
            d_q_ref[b, y] = _dot(rounded, k).astype(d_q_ref.dtype)
            d_k += _dot(rounded, q, (0, 0))
            d_table = access.collect(columns, d_logits)
            for span, part in zip(spans, d_table, strict=True):
                # The first image finds nothing in memory to add to.
                before = jnp.where(b == 0, 0.0, d_shared_ref[y, :, span])
                d_shared_ref[y, :, span] = before + part
            if on_gpu:  # another thread may read this the next time
                pltriton.debug_barrier()
            return d_k, d_v, jax.tree.map(jnp.add, d_own, d_table)

        sums = (
            jnp.zeros(k_ref.shape[1:], jnp.float32),
            jnp.zeros(v_ref.shape[1:], jnp.float32),
            [jnp.zeros((pitch, access.span), jnp.float32) for _ in spans],
        )
        d_k, d_v, d_own = jax.lax.fori_loop(0, num_rows, row, sums)
        d_k_ref[b] = d_k.astype(d_k_ref.dtype)
        d_v_ref[b] = d_v.astype(d_v_ref.dtype)
        for span, part in zip(spans, d_own, strict=True):
            d_own_ref[b, :, span] = part

    jax.lax.fori_loop(0, q_ref.shape[0], image, None)


def _weights(q: Array, k: Array, bias: Array, visible: Array) -> Array:
    """Attention [P, M] of a row's queries, float32; padded and hidden keys have 0."""
    logits = _dot(q, k, (1, 1)) + bias
    logits = jnp.where(visible > 0, logits, _HIDDEN)
    weights = jnp.exp(logits - logits.max(1, keepdims=True)) * visible
    return weights / jnp.maximum(weights.sum(1, keepdims=True), _TINY)


def _dot(x: Array, y: Array, axes: tuple[int, int] = (1, 0)) -> Array:
    """Sum over one axis of each, in float32.

    Factors of float32 are rounded as JAX's setting has it, like those of the XLA path;
    of bfloat16 the default already rounds nothing.
    """
    exact = x.dtype == jnp.bfloat16
    return jax.lax.dot_general(
        x,
        y,
        (((axes[0],), (axes[1],)), ((), ())),
        precision=jax.lax.Precision.DEFAULT if exact else None,
        preferred_element_type=jnp.float32,
    )
