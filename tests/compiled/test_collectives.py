"""Bytes that a compiled program sends, for programs of which they are known."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from kprpe_jax.compiled.collectives import collective_bytes, least_bytes
from kprpe_jax.core.mesh import make_mesh

AXES = ("data", "class")


def sent(body, *, out):
    mesh = make_mesh({"data": 2, "fsdp": 1, "class": 4}, jax.devices()[:8])
    run = jax.shard_map(
        body, mesh=mesh, in_specs=PartitionSpec(AXES), out_specs=out, check_vma=False
    )
    shape = jax.ShapeDtypeStruct((64, 6), jnp.float32)
    return collective_bytes(jax.jit(run).lower(shape).compile().as_text())


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")
def test_collectives_by_hand():
    """A device holds 8 rows of 6 numbers, 192 bytes."""
    gather = partial(jax.lax.all_gather, axis_name="class", tiled=True)
    got = sent(gather, out=PartitionSpec("data"))
    assert got == {"all-gather": 3 * 192}  # what the three others lack of it
    scatter = partial(jax.lax.psum_scatter, axis_name="class", tiled=True)
    got = sent(scatter, out=PartitionSpec(AXES))
    assert got == {"reduce-scatter": 3 / 4 * 192}
    add = partial(jax.lax.psum, axis_name=AXES)
    got = sent(add, out=PartitionSpec())
    assert got == {"all-reduce": 2 * 7 / 8 * 192}
    assert sent(lambda x: x * 2, out=PartitionSpec(AXES)) == {}


def test_forms_of_groups_and_types():
    line = "%a = (bf16[3,2]{1,0}, pred[]) all-reduce(%x, %y), replica_groups={groups}"
    for groups in ("{{0,1,2,3},{4,5,6,7}}", "[2,4]<=[8]"):
        got = collective_bytes(line.replace("{groups}", groups))
        assert got == {"all-reduce": 2 * 3 / 4 * 13}
    with pytest.raises(ValueError, match="cannot count a all-to-all"):
        collective_bytes("%a = f32[2] all-to-all(%x), replica_groups={{0,1}}")


def test_the_least():
    one = least_bytes(batch=64, dim=8, slots=100, data=1, classes=1)
    assert sum(one.values()) == 0
    least = least_bytes(batch=64, dim=8, slots=100, data=2, classes=4)
    assert least == {
        "embeddings": 3 / 4 * 32 * 9 * 4,
        "their gradient": 3 / 4 * 32 * 8 * 4,
        "softmax": 2 * 3 / 4 * 32 * 3 * 4,
        "gradient of centers": 2 * 1 / 2 * 100 * 8 * 4,
    }
