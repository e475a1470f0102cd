"""Pallas kernels of attention with a bias by bucket: forward and backward.

A program has the queries of one row of the token grid beside all keys, so that whole
rows of logits are on chip: softmax needs no running maximum, and the backward pass
keeps nothing but the inputs. Where tokens and tables lie is `kernel_access`'s business.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.typing import DTypeLike

from kprpe_jax.layers.kernel_access import ByBlock, ByIndex
from kprpe_jax.layers.pallas_launch import launch_options

_HIDDEN = -1e30  # a logit that no query may have; finite, as rows may be all hidden
_TINY = 1e-30
_Q, _K, _V = range(3)


class Operands(NamedTuple):
    """What the kernels read.

    Sizes are padded: B images (`images_per_program`), P queries and keys in a row of
    the grid, M keys (a multiple of P), D columns of the tables (another).

    Attributes:
      qkv: [B, N, 3, H, d] where N = R C; on TPUs [B, 3, H, M, d].
      shared: float32 [H, R, P, D], part of T that all images share.
      own: float32 [B, H, P, D], part of an image, the same in all rows of the grid.
      visible: float32 [B, 1, M], 1 where queries may look, else 0.
      columns: int32 [R, 1, M], column of the tables that queries of a row read for a
        key; any for padding, which `visible` hides.
    """

    qkv: Array
    shared: Array
    own: Array
    visible: Array
    columns: Array


def attend(operands: Operands, scale: float, platform: str) -> Array:
    """softmax(scale q k' + T) v.

    Args:
      operands: padded.
      scale: of q.
      platform: of `pallas_launch`.
    Returns: [B, N, H, d] (TPUs: [B, H, M, d], only R P of M written) in qkv's type;
      zeros where all keys are hidden.
    """
    qkv, shared = operands.qkv, operands.shared
    images = images_per_program(qkv.shape[0], qkv.dtype)
    access = _access(operands, platform)
    shape = qkv.shape[: access.part_axis] + qkv.shape[access.part_axis + 1 :]
    result = jax.ShapeDtypeStruct(shape, qkv.dtype)
    return pl.pallas_call(
        functools.partial(_forward, access=access, scale=scale),
        out_shape=result,
        grid=(shared.shape[0], qkv.shape[0] // images, shared.shape[1]),
        in_specs=_specs(access, images, operands),
        out_specs=access.block(result, images),
        cost_estimate=_cost(access, *operands, result, products=2, reads=1),
        **launch_options(platform, parallel_axes=2, ordered_axes=1),
    )(*operands)


def attend_backward(
    operands: Operands, cotangent: Array, scale: float, platform: str
) -> tuple[Array, Array, Array]:
    """Gradients of `attend` to qkv and both parts of T.

    A program has one head of several images and goes through all rows of the grid. It
    alone adds to its part of the shared table; the parts are summed afterward. So no
    sum depends on the order in which programs run.
    """
    qkv, shared, own, *_ = operands
    images = images_per_program(qkv.shape[0], qkv.dtype)
    programs = qkv.shape[0] // images
    access = _access(operands, platform)
    results = [
        jax.ShapeDtypeStruct(qkv.shape, qkv.dtype),
        jax.ShapeDtypeStruct((programs, *shared.shape), jnp.float32),
        jax.ShapeDtypeStruct(own.shape, jnp.float32),
    ]
    in_specs = _specs(access, images, operands)
    part = pl.BlockSpec(
        (None, None, *shared.shape[1:]), lambda h, c, *_: (c, h, 0, 0, 0)
    )
    d_qkv, d_shared, d_own = pl.pallas_call(
        functools.partial(
            _backward, access=access, scale=scale, on_gpu=platform == "gpu"
        ),
        out_shape=results,
        grid=(shared.shape[0], programs),
        in_specs=[*in_specs, access.block(cotangent, images)],
        out_specs=[in_specs[0], part, in_specs[2]],
        cost_estimate=_cost(access, *operands, *results, products=5, reads=2),
        **launch_options(platform, parallel_axes=2),
    )(*operands, cotangent)
    return d_qkv, d_shared.sum(0), d_own


def images_per_program(batch: int, dtype: DTypeLike) -> int:
    """Images that share what a program reads for all of them.

    The gradient of the shared table exists once per program. There are as few programs
    as at most 8 images each (4 of float32) allow, and of those the smallest; the batch
    is padded to a multiple of this.
    """
    programs = -(-batch // (8 if jnp.dtype(dtype).itemsize == 2 else 4))
    return -(-batch // programs)


def _access(operands: Operands, platform: str) -> ByIndex | ByBlock:
    qkv, (_, rows, pitch, depth) = operands.qkv, operands.shared.shape
    if platform == "tpu":
        pieces = 2 if qkv.dtype.itemsize == 2 else 3
        return ByBlock(pitch, depth, pieces)
    keys = operands.visible.shape[-1]
    return ByIndex((rows, qkv.shape[1] // rows), pitch, keys, depth)


def _specs(
    access: ByIndex | ByBlock, images: int, operands: Operands
) -> list[pl.BlockSpec]:
    """What of the operands a program has, by (head, number of its images, ...)."""
    qkv, shared, own, visible, columns = operands
    return [
        access.block(qkv, images),
        pl.BlockSpec((None, *shared.shape[1:]), lambda h, c, *_: (h, 0, 0, 0)),
        pl.BlockSpec((images, None, *own.shape[2:]), lambda h, c, *_: (c, h, 0, 0)),
        pl.BlockSpec((images, *visible.shape[1:]), lambda h, c, *_: (c, 0, 0)),
        pl.BlockSpec(columns.shape, lambda h, c, *_: (0, 0, 0)),
    ]


def _cost(
    access: ByIndex | ByBlock,
    *arrays: Array | jax.ShapeDtypeStruct,
    products: int,
    reads: int,
) -> pl.CostEstimate:
    """Of so many products over channels and reads of the tables, for XLA.

    `arrays` are all that a kernel reads and writes, its arguments first.
    """
    width = arrays[0].shape[-1]
    heads, rows, pitch, depth = arrays[1].shape
    pairs = len(arrays[0]) * heads * rows * pitch * arrays[3].shape[-1]
    pieces = access.pieces if isinstance(access, ByBlock) else 0
    return pl.CostEstimate(
        flops=2 * pairs * (products * width + reads * pieces * depth),
        transcendentals=pairs,
        bytes_accessed=sum(x.size * x.dtype.itemsize for x in arrays),
    )


def _forward(
    qkv_ref, shared_ref, own_ref, visible_ref, columns_ref, out_ref, *,
    access: ByIndex | ByBlock, scale: float,
):  # fmt: skip
    y = pl.program_id(2)
    columns = access.prepare(columns_ref[y])

    def image(b: Array, _: None) -> None:
        q = access.queries(qkv_ref, b, y, _Q) * scale
        k, v = (access.all_keys(qkv_ref, b, part) for part in (_K, _V))
        bias = access.read(columns, (shared_ref, y), (own_ref, b))
        weights = _weights(q, k, bias, visible_ref[b])
        access.put_queries(out_ref, _dot(weights.astype(v.dtype), v), b, y)

    jax.lax.fori_loop(0, own_ref.shape[0], image, None)


def _backward(
    qkv_ref, shared_ref, own_ref, visible_ref, columns_ref, cotangent_ref,
    d_qkv_ref, d_shared_ref, d_own_ref, *, access: ByIndex | ByBlock, scale: float,
    on_gpu: bool,
):  # fmt: skip
    num_rows, pitch, depth = shared_ref.shape
    spans = [pl.ds(start, access.span) for start in range(0, depth, access.span)]

    def image(b: Array, _: None) -> None:
        visible = visible_ref[b]

        def row(y: Array, sums: tuple[Any, ...]) -> tuple[Any, ...]:
            d_k, d_v, d_own = sums
            q = access.queries(qkv_ref, b, y, _Q) * scale
            # Keys and values are read again for each row, and late: kept, they would
            # not fit on GPUs.
            k = access.all_keys(qkv_ref, b, _K)
            columns = access.prepare(columns_ref[y])
            bias = access.read(columns, (shared_ref, y), (own_ref, b))
            weights = _weights(q, k, bias, visible)
            cotangent = access.queries(cotangent_ref, b, y)
            v = access.all_keys(qkv_ref, b, _V)
            d_v += _dot(weights.astype(v.dtype), cotangent, (0, 0))
            d_weights = _dot(cotangent, v, (1, 1))
            mean = (weights * d_weights).sum(1, keepdims=True)
            d_logits = weights * (d_weights - mean)
            rounded = d_logits.astype(k.dtype)
            access.put_queries(d_qkv_ref, _dot(rounded, k) * scale, b, y, _Q)
            d_k += _dot(rounded, q, (0, 0))
            d_table = access.collect(columns, d_logits)
            for span, part in zip(spans, d_table, strict=True):
                # The first image finds nothing in memory to add to.
                before = jnp.where(b == 0, 0.0, d_shared_ref[y, :, span])
                d_shared_ref[y, :, span] = before + part
            if on_gpu:  # another thread may read this the next time
                from jax.experimental.pallas import triton as pltriton

                pltriton.debug_barrier()
            return d_k, d_v, jax.tree.map(jnp.add, d_own, d_table)

        by_key = jnp.zeros((visible.shape[1], qkv_ref.shape[-1]), jnp.float32)
        by_column = [jnp.zeros((pitch, access.span), jnp.float32) for _ in spans]
        sums = by_key, by_key, by_column
        d_k, d_v, d_own = jax.lax.fori_loop(0, num_rows, row, sums)
        access.put_keys(d_qkv_ref, d_k, b, _K)
        access.put_keys(d_qkv_ref, d_v, b, _V)
        for span, part in zip(spans, d_own, strict=True):
            d_own_ref[b, :, span] = part

    jax.lax.fori_loop(0, own_ref.shape[0], image, None)


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
