"""FLOPs that functions ask for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec

from kprpe_jax.core.flops import traced_flops
from kprpe_jax.core.mesh import make_mesh

PRODUCT = 2 * 3 * 4 * 5


def count(function, *shapes, **options):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return traced_flops(jax.jit(function).trace(*arguments).jaxpr, **options)


def test_products_and_their_gradients():
    assert count(jnp.dot, (3, 4), (4, 5)) == PRODUCT
    gradient = jax.grad(lambda x, y: jnp.sin(x @ y).sum(), (0, 1))
    assert count(gradient, (3, 4), (4, 5)) == 3 * PRODUCT


def test_loops_and_branches():
    def turn(x, y):
        return jax.lax.cond(x.sum() > 0, lambda: x @ y, lambda: x @ y @ y), None

    got = count(lambda x, y: jax.lax.scan(turn, x, y)[0], (3, 4), (7, 4, 4))
    assert got == 7 * 2 * 2 * 3 * 4 * 4


def test_convolution():
    kernel = np.zeros((2, 2, 3, 8), np.float32)

    def convolve(x):
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    assert count(convolve, (5, 6, 6, 3)) == 2 * (5 * 3 * 3 * 8) * (2 * 2 * 3)


def test_kernels_by_the_number_of_their_programs():
    def kernel(x_ref, y_ref, out_ref):
        out_ref[...] = x_ref[...] @ y_ref[...]

    multiply = pl.pallas_call(
        kernel,
        out_shape=jax.ShapeDtypeStruct((6, 3, 5), jnp.float32),
        grid=(6,),
        in_specs=[
            pl.BlockSpec((None, 3, 4), lambda i: (i, 0, 0)),
            pl.BlockSpec((4, 5), lambda i: (0, 0)),
        ],
        out_specs=pl.BlockSpec((None, 3, 5), lambda i: (i, 0, 0)),
        interpret=True,
    )
    assert count(multiply, (6, 3, 4), (4, 5)) == 6 * PRODUCT
    assert count(multiply, (6, 3, 4), (4, 5), pallas=False) == 0


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")
def test_all_devices_of_a_mesh():
    mesh = make_mesh({"data": 8, "fsdp": 1, "class": 1}, jax.devices()[:8])
    rows, whole = PartitionSpec("data"), PartitionSpec()
    shared = jax.shard_map(jnp.dot, mesh=mesh, in_specs=(rows, whole), out_specs=rows)
    assert count(shared, (24, 4), (4, 5)) == 8 * PRODUCT
