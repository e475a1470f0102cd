"""Read bias tables by bucket: table[..., d(i, j)], and the transposes of that read.

A read through constant indices is a product with a constant 0/1 matrix, and its
gradient is a sum over buckets. A table that all queries share is read by that very
product: faster than a gather on two CPU cores, made for matrix units elsewhere, and it
needs no scatter in the backward pass. A table with a row per query is gathered, and
its gradient is the same sum over buckets, in place of the scatter of autodiff.

Where the method has several tables (`cross`), their buckets lie side by side in the
last axis and the reads add up.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kprpe_jax.position.buckets import Buckets

BucketSet = tuple[Buckets, ...]

_EXACT = jax.lax.Precision.HIGHEST  # a read must not round the table


def num_buckets(buckets: BucketSet) -> int:
    """Length of the last axis of a table that `buckets` reads."""
    return sum(part.num_buckets for part in buckets)


def membership(buckets: BucketSet) -> Array:
    """0/1 matrix: is the pair (i, j) in bucket k?

    Returns: float32 [num_buckets, N, N].
    """
    return jnp.concatenate(
        [
            jnp.asarray(part.ids)[None] == jnp.arange(part.num_buckets)[:, None, None]
            for part in buckets
        ]
    ).astype(jnp.float32)


def lookup(table: Array, buckets: BucketSet) -> Array:
    """table[..., d(i, j)].

    Args:
      table: float32 [..., num_buckets].
      buckets: from `compute_buckets`.
    Returns: float32 [..., N, N].
    """
    size = buckets[0].ids.shape[0]
    pairs = membership(buckets).reshape(-1, size * size)
    read = jnp.matmul(table, pairs, precision=_EXACT)
    return read.reshape(*table.shape[:-1], size, size)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def lookup_rows(table: Array, buckets: BucketSet) -> Array:
    """table[..., i, d(i, j)]: every query i has its own row.

    Args:
      table: float32 [..., N, num_buckets].
      buckets: from `compute_buckets`.
    Returns: float32 [..., N, N].
    """
    read, start = 0.0, 0
    for part in buckets:
        ids = np.expand_dims(part.ids + start, tuple(range(table.ndim - 2)))
        read += jnp.take_along_axis(table, ids, axis=-1, mode="promise_in_bounds")
        start += part.num_buckets
    return read


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def sum_rows(values: Array, buckets: BucketSet) -> Array:
    """Sum over keys by bucket, the transpose of `lookup_rows`.

    Args:
      values: float32 [..., N, N], last axis = key j.
      buckets: from `compute_buckets`.
    Returns: float32 [..., N, num_buckets].
    """
    return jnp.einsum("...ij,kij->...ik", values, membership(buckets), precision=_EXACT)


lookup_rows.defvjp(
    lambda table, buckets: (lookup_rows(table, buckets), None),
    lambda buckets, _, cotangent: (sum_rows(cotangent, buckets),),
)
sum_rows.defvjp(
    lambda values, buckets: (sum_rows(values, buckets), None),
    lambda buckets, _, cotangent: (lookup_rows(cotangent, buckets),),
)
