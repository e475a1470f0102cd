"""Read bias tables by bucket: table[..., d(i, j)], and the transposes of that read.

A read through constant indices is linear, and its transpose is a sum over buckets: a
product with constant 0/1 matrices. The reads here have that as their gradient, in place
of the scatter that autodiff makes of a gather. Where buckets tell rows and columns of
the grid apart, the sum goes over one axis after the other. Gradients of any order are
there in reverse mode (`jax.custom_vjp`); `jax.jvp`, `jax.jacfwd` and `jax.hessian`,
which is forward over reverse, are refused by JAX.

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

_EXACT = jax.lax.Precision.HIGHEST  # neither a read nor a sum may round the table


def num_buckets(buckets: BucketSet) -> int:
    """Length of the last axis of a table that `buckets` reads."""
    return sum(part.num_buckets for part in buckets)


def membership(buckets: BucketSet) -> Array:
    """0/1 matrix: is the pair (i, j) in bucket k?

    Returns: float32 [num_buckets, N, N].
    """
    return jnp.concatenate([_one_hot(part.ids, part.num_buckets) for part in buckets])


def _one_hot(ids: np.ndarray, size: int) -> Array:
    """[size, ...]: is the id k?"""
    numbers = jnp.arange(size).reshape(-1, *[1] * ids.ndim)
    return (jnp.asarray(ids) == numbers).astype(jnp.float32)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def lookup(table: Array, buckets: BucketSet) -> Array:
    """table[..., d(i, j)]; for reverse mode only.

    A gather, which the addition to the logits takes in; on TPUs, which are made for
    products and not for gathers, a product with `membership`.

    Args:
      table: float32 [..., num_buckets].
      buckets: from `compute_buckets`, static under `jax.jit`.
    Returns: float32 [..., N, N].
    """
    return jax.lax.platform_dependent(
        table,
        tpu=partial(_lookup_product, buckets=buckets),
        default=partial(_lookup_gather, buckets=buckets),
    )


def _lookup_gather(table: Array, buckets: BucketSet) -> Array:
    read, start = 0.0, 0
    for part in buckets:
        read += (
            jnp.asarray(table).at[..., part.ids + start].get(mode="promise_in_bounds")
        )
        start += part.num_buckets
    return read


@jax.named_scope("lookup")
def _lookup_product(table: Array, buckets: BucketSet) -> Array:
    return jnp.einsum("...k,kij->...ij", table, membership(buckets), precision=_EXACT)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def sum_pairs(values: Array, buckets: BucketSet) -> Array:
    """Sum over queries and keys by bucket, the transpose of `lookup`.

    Args:
      values: float32 [..., N, N].
      buckets: from `compute_buckets`, static under `jax.jit`.
    Returns: float32 [..., num_buckets].
    """
    return jnp.concatenate([_sum_pairs(values, part) for part in buckets], -1)


@jax.named_scope("lookup")
def _sum_pairs(values: Array, part: Buckets) -> Array:
    einsum = partial(jnp.einsum, precision=_EXACT)
    if part.axes is None:
        return einsum("...ij,kij->...k", values, _one_hot(part.ids, part.num_buckets))
    rows, columns, num_columns = part.axes
    in_row = _one_hot(rows, part.num_buckets // num_columns)
    in_column = _one_hot(columns, num_columns)
    lead = values.shape[:-2]
    values = values.reshape(*lead, *(len(rows), len(columns)) * 2)
    by_row = einsum("...imjn,rij->...rmn", values, in_row)
    return einsum("...rmn,cmn->...rc", by_row, in_column).reshape(*lead, -1)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def lookup_rows(table: Array, buckets: BucketSet) -> Array:
    """table[..., i, d(i, j)], a row for every query i; for reverse mode only.

    Args:
      table: float32 [..., N, num_buckets].
      buckets: from `compute_buckets`, static under `jax.jit`.
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
      buckets: from `compute_buckets`, static under `jax.jit`.
    Returns: float32 [..., N, num_buckets].
    """
    with jax.named_scope("lookup"):
        found = membership(buckets)
        return jnp.einsum("...ij,kij->...ik", values, found, precision=_EXACT)


def _transposed(function, transpose) -> None:
    """Make each of two linear maps the gradient of the other."""
    for forward, backward in ((function, transpose), (transpose, function)):
        forward.defvjp(
            lambda x, buckets, f=forward: (f(x, buckets), None),
            lambda buckets, _, cotangent, b=backward: (b(cotangent, buckets),),
        )


_transposed(lookup, sum_pairs)
_transposed(lookup_rows, sum_rows)
