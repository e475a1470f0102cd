"""Attention with keypoint bias in one kernel: no [B, H, N, N] array in memory.

Equal to the XLA path of `attention` and of the same parameters. Here tables are brought
into the form that the kernel reads (`fused_kernels`), by operations that XLA
differentiates; the kernel and its gradient see neither weights nor buckets.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec

from kprpe_jax.core.constraints import num_shares
from kprpe_jax.layers.fused_kernels import (
    Operands,
    attend,
    attend_backward,
    images_per_program,
)
from kprpe_jax.layers.pallas_launch import pad_ends, power_of_two
from kprpe_jax.layers.platforms import kernel_platform
from kprpe_jax.position.buckets import Buckets
from kprpe_jax.position.encoding import BiasTables, of_images
from kprpe_jax.position.lookup import BucketSet

MOST_TOKENS = 256  # their rows of logits must fit on chip
_MOST_KEYS = 512  # with those that pad the grid
_FEWEST_KEYS = 128  # fewer tokens are padded to as many
_LEAST = 16  # side of the smallest product that Triton has


def fused_attention(
    qkv: Array,
    tables: BiasTables,
    buckets: BucketSet,
    key_mask: Array | None = None,
    *,
    sharding: NamedSharding | None = None,
    platform: str | None = None,
) -> Array:
    """softmax(q k' / sqrt(d) + B_ij) v with B_ij = A[h,i,d(i,j)] - g[b,h,d(i,j)].

    Gradients go to q, k, v and the tables; that of `rows` (A) is summed over the images
    of a device in a fixed order, and over devices by bucket.

    Of float32 the bias is exact; the products of q, k and v are as exact as those of
    the XLA path: with JAX's default setting TF32 on GPUs and bfloat16 on TPUs, in full
    under `jax.default_matmul_precision("highest")`.

    Source: KP-RPE, Eq. 5, 7 and 11, in the split form of `position.keypoint_bias`.
    Args:
      qkv: [B, N, 3, H, d], queries, keys and values beside each other as a projection
        writes them, float32 or bfloat16.
      tables: one layer's; `shared` and `rows` only, `rows` the same for all images
        of a device.
      buckets: of the method `product`.
      key_mask: bool [B, N], False = no query may look there; where all are hidden the
        result is zero.
      sharding: of the batch axis over devices; each runs the kernel on its images.
      platform: `gpu` (Triton), `tpu` (Mosaic) or `cpu` (interpreted, slow); None = the
        one that JAX computes on.
    Returns: [B, N, H, d] in qkv's type.
    Raises: ValueError: tables, buckets or sizes that the kernel does not read.
    """
    batch, tokens, _, heads, width = qkv.shape
    channels = power_of_two(width, _LEAST)
    shares = num_shares(sharding)
    part = check_fused(tables, buckets, tokens, shares)
    if qkv.size == 0:
        return jnp.zeros_like(qkv[:, :, 0])
    grid = _grid(part)
    pitch = _padded_grid(grid)[1]
    shared, own = (
        pad_ends(table, (-2, pitch)) for table in _table_parts(tables, part, shares)
    )
    own = of_images(own, batch)
    visible = jnp.ones((batch, tokens)) if key_mask is None else key_mask
    visible = _pad_grid(visible.astype(jnp.float32)[..., None], grid)
    operands = Operands(
        # In one axis, which a TPU keeps without padding for the backward pass.
        pad_ends(qkv, (-1, channels)).reshape(batch, tokens, -1),
        jnp.broadcast_to(shared, (shares, heads, *shared.shape[2:])),
        jnp.broadcast_to(own, (batch, heads, *own.shape[2:])),
        visible[:, None, :, 0],
        _read_columns(part),
    )

    form = _Form(grid, heads, width**-0.5, platform or kernel_platform())

    def run(operands: Operands) -> Array:
        return _attend(operands, form)

    if sharding is not None:
        images, whole = PartitionSpec(*sharding.spec[:1]), PartitionSpec()
        run = jax.shard_map(
            run,
            mesh=sharding.mesh,
            in_specs=(Operands(images, images, images, images, whole),),
            out_specs=images,
            check_vma=False,  # a kernel does not say over which axes results vary
        )
    return run(operands)[..., :width]


def check_fused(
    tables: BiasTables, buckets: BucketSet, num_tokens: int, shares: int = 1
) -> Buckets:
    """The buckets that the kernel reads.

    Args:
      tables: one layer's.
      buckets: that they are read with.
      num_tokens: N.
      shares: of the batch, one a device; each may have its own `rows`.
    Raises: ValueError: an encoding, method or grid that needs the XLA path.
    """
    contextual = (tables.context_q, tables.context_k, tables.context_v)
    per_image = tables.rows is not None and tables.rows.shape[0] not in (1, shares)
    absent = tables.rows is None and tables.shared is None
    if absent or per_image or any(table is not None for table in contextual):
        raise ValueError(
            "attention 'pallas' needs a position encoding whose bias is a table: rpe, "
            "or KP-RPE factorized and without hidden_dim; use attention 'xla' for the "
            "others."
        )
    if len(buckets) != 1 or buckets[0].axes is None:
        raise ValueError(
            "attention 'pallas' reads buckets of the method 'product'; use it or "
            "attention 'xla'."
        )
    if num_tokens > MOST_TOKENS:
        raise ValueError(
            f"attention 'pallas' keeps at most {MOST_TOKENS} tokens on chip; got "
            f"{num_tokens}; use larger patches or attention 'xla'."
        )
    grid = _grid(buckets[0])
    padded = _padded_grid(grid)
    if math.prod(padded) > _MOST_KEYS:
        raise ValueError(
            f"attention 'pallas' pads {grid[0]} x {grid[1]} tokens to {padded[0]} x "
            f"{padded[1]} and keeps at most {_MOST_KEYS} on chip; use attention 'xla'."
        )
    return buckets[0]


class _Form(NamedTuple):
    """What a kernel is made for.

    Attributes:
      grid: (rows, columns) of tokens.
      heads: H.
      scale: of q.
      platform: of `pallas_launch`.
    """

    grid: tuple[int, int]
    heads: int
    scale: float
    platform: str


def _attend_images(operands: Operands, form: _Form) -> Array:
    """The kernel on a device's images.

    `qkv` is [B, N, 3 H d]; `shared` has a leading axis of one copy. What is padded for
    the kernel is padded again for the backward pass, not kept.
    """
    out = attend(_padded(operands, form), form.scale, form.platform)
    return _result(out, form, len(operands.qkv))


def _padded(operands: Operands, form: _Form) -> Operands:
    """What the kernel reads, for a multiple of the images that a program has."""
    qkv, shared, own, visible, columns = operands
    images = (0, _padded_batch(operands))
    qkv = _padded_qkv(qkv, form, images[1])
    own, visible = pad_ends(own, images), pad_ends(visible, images)
    return Operands(qkv, shared[0], own, visible, columns)


def _padded_batch(operands: Operands) -> int:
    batch = len(operands.qkv)
    images = images_per_program(batch, operands.qkv.dtype)
    return -(-batch // images) * images


def _padded_qkv(qkv: Array, form: _Form, images: int) -> Array:
    qkv = pad_ends(qkv, (0, images))
    qkv = qkv.reshape(*qkv.shape[:2], 3, form.heads, -1)
    if form.platform == "tpu":  # whose kernel has whole blocks: [B, 3, H, M, d]
        qkv = _pad_grid(jnp.moveaxis(qkv, 1, 3), form.grid)
    return qkv


def _result(out: Array, form: _Form, batch: int) -> Array:
    """The kernel's result as [B, N, H, d]."""
    if form.platform == "tpu":
        out = jnp.moveaxis(_cut_grid(out, form.grid), 2, 1)
    return out[:batch]


def _attend_forward(operands: Operands, form: _Form) -> tuple[Array, Operands]:
    return _attend_images(operands, form), operands


def _attend_backward(
    form: _Form, operands: Operands, cotangent: Array
) -> tuple[Operands]:
    batch, padded = len(operands.qkv), _padded(operands, form)
    out = jax.eval_shape(lambda x: attend(x, form.scale, form.platform), padded)
    (cotangent,) = jax.linear_transpose(partial(_result, form=form, batch=batch), out)(
        cotangent
    )
    d_qkv, d_shared, d_own = attend_backward(
        padded, cotangent, form.scale, form.platform
    )
    (d_qkv,) = jax.linear_transpose(
        partial(_padded_qkv, form=form, images=_padded_batch(operands)), operands.qkv
    )(d_qkv)
    return (Operands(d_qkv, d_shared[None], d_own[:batch], None, None),)


_attend = jax.custom_vjp(_attend_images, nondiff_argnums=(1,))
_attend.defvjp(_attend_forward, _attend_backward)


def _grid(part: Buckets) -> tuple[int, int]:
    rows, columns, _ = part.axes
    return len(rows), len(columns)


def _padded_grid(grid: tuple[int, int]) -> tuple[int, int]:
    """Rows of keys and the pitch P of a row, powers of two; at least _FEWEST_KEYS."""
    pitch = power_of_two(grid[1], _LEAST)
    return power_of_two(grid[0], -(-_FEWEST_KEYS // pitch)), pitch


def _pad_grid(tokens: Array, grid: tuple[int, int]) -> Array:
    """[..., N, d] -> [..., M, d], zeros beyond each row and the last."""
    rows, pitch = _padded_grid(grid)
    tokens = tokens.reshape(*tokens.shape[:-2], *grid, tokens.shape[-1])
    tokens = pad_ends(tokens, (-3, rows), (-2, pitch))
    return tokens.reshape(*tokens.shape[:-3], -1, tokens.shape[-1])


def _cut_grid(tokens: Array, grid: tuple[int, int]) -> Array:
    """The reverse of `_pad_grid`."""
    tokens = tokens.reshape(*tokens.shape[:-2], *_padded_grid(grid), tokens.shape[-1])
    tokens = tokens[..., : grid[0], : grid[1], :]
    return tokens.reshape(*tokens.shape[:-3], -1, tokens.shape[-1])


def _table_parts(tables: BiasTables, part: Buckets, shares: int) -> tuple[Array, Array]:
    """Tables read by column: by share [S, H', R, C, D], by image [G, H', C, D].

    With T[y, x, r, c] the table of query (y, x), D holds T[y, x, r, c(x, n)] at
    r P + n: row r of the buckets, column n of the keys.
    """
    rows, columns, num_columns = part.axes
    sizes = (part.num_buckets // num_columns, num_columns)
    pitch = _padded_grid(_grid(part))[1]
    in_column = jax.nn.one_hot(columns, num_columns)  # [C, C, num_columns]
    read = partial(
        jnp.einsum,
        "...xrc,xnc->...xrn",
        precision=jax.lax.Precision.HIGHEST,  # a read does not round
    )

    def by_column(table: Array) -> Array:  # [..., C, num_buckets]
        out = read(table.reshape(*table.shape[:-1], *sizes), in_column)
        return pad_ends(out, (-1, pitch)).reshape(*out.shape[:-2], -1)

    size = sizes[0] * pitch
    shared = jnp.zeros((1, 1, len(rows), len(columns), size))
    own = jnp.zeros((1, 1, len(columns), size))
    if tables.rows is not None:
        # A table for each device, so that gradients are summed there, and by bucket,
        # before they are summed over devices.
        table = jnp.broadcast_to(tables.rows, (shares, *tables.rows.shape[1:]))
        grid = (*table.shape[:2], len(rows), len(columns), -1)
        shared = by_column(table.reshape(grid))
    if tables.shared is not None:
        table = tables.shared[:, :, None]
        own = by_column(jnp.repeat(table, len(columns), axis=2))
    return shared, own


def _read_columns(part: Buckets) -> np.ndarray:
    """Where in D the queries of a row read for a key: int32 [R, 1, M]."""
    rows, _, _ = part.axes
    num_rows, pitch = _padded_grid(_grid(part))
    rows = np.pad(rows, ((0, 0), (0, num_rows - rows.shape[1])))
    read = rows[:, :, None] * pitch + np.arange(pitch)
    return read.reshape(len(rows), 1, -1).astype(np.int32)
