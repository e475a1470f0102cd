"""What a training step moves, on programs of which it is known."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from benchmarks import scale
from kprpe_jax.compiled import hlo_text
from kprpe_jax.compiled.collectives import sent_by
from kprpe_jax.core.mesh import make_mesh


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")
def test_collectives_of_a_loop_count_as_often_as_it_runs():
    """Three turns sum 8 rows of 6 numbers over 8 devices, one gather follows."""
    mesh = make_mesh({"data": 2, "fsdp": 1, "class": 4}, jax.devices()[:8])
    axes = PartitionSpec(("data", "class"))

    def body(x):
        def turn(x, _):
            return jax.lax.psum(jnp.sin(x), ("data", "class")), None

        x = jax.lax.scan(turn, x, None, length=3)[0]
        return jax.lax.all_gather(x, "class", tiled=True)

    run = jax.shard_map(
        body, mesh=mesh, in_specs=axes, out_specs=PartitionSpec(), check_vma=False
    )
    shape = jax.ShapeDtypeStruct((64, 6), jnp.float32)
    program = hlo_text.parse(jax.jit(run).lower(shape).compile().as_text())
    assert sent_by(program)[0] == {
        "all-reduce": 3 * 2 * 7 / 8 * 192,
        "all-gather": 3 * 192,
    }
    assert scale.in_flight(program) == {}  # CPUs wait


GROUPS = "replica_groups={{0,1,2,3}}"
STARTED = f"""HloModule m

ENTRY %main (x: f32[8]) -> f32[32] {{
  %x = f32[8]{{0}} parameter(0)
  %y = f32[32]{{0}} parameter(1)
  %a = (f32[8]{{0}}, f32[32]{{0}}) all-gather-start(%x), {GROUPS}
  %m = f32[32]{{0}} multiply(%y, %y)
  %b = f32[32]{{0}} all-gather-done(%a)
  %c = f32[32]{{0}} all-reduce-start(%b), {GROUPS}, to_apply=%add
  %t = f32[32]{{0}} bitcast(%m)
  %d = f32[32]{{0}} all-reduce-done(%c)
  %e = f32[32]{{0}} all-reduce-start(%d), {GROUPS}, config={{"is_sync":true}}
  %n = f32[32]{{0}} multiply(%m, %m)
  ROOT %f = f32[32]{{0}} all-reduce-done(%e)
}}
"""


def test_in_flight_is_what_other_kernels_run_beside():
    program = hlo_text.parse(STARTED)
    gathered, summed = 3 * 32, 2 * 3 / 4 * 128
    assert sent_by(program)[0] == {"all-gather": gathered, "all-reduce": 2 * summed}
    assert scale.in_flight(program) == {"all-gather": gathered}


def test_the_least_by_hand():
    part = partial(scale.least, 1000, 64, 8, 100)
    one = part((1, 1, 1))
    assert list(one.values()) == [0, 0, 0]
    whole = part((8, 1, 1))  # everything is summed over eight
    assert whole["parameters"] == 0
    assert whole["their gradient"] == 2 * 7 / 8 * 4000
    assert whole["class centers"] == 2 * 7 / 8 * 100 * 8 * 4
    split = part((2, 4, 1))  # gathered twice and scattered by four, summed by two
    assert split["parameters"] == 2 * 3 / 4 * 4000
    assert split["their gradient"] == 3 / 4 * 4000 + 2 * 1 / 2 * 1000
    assert part((1, 1, 8))["class centers"] < whole["class centers"]


def test_the_least_state():
    assert scale.least_state(1000, 800, (2, 1, 1)) == 3 * 4 * 1800
    assert scale.least_state(1000, 800, (2, 4, 8)) == 3 * 4 * (250 + 100)


def test_a_table_has_every_kind():
    row = {
        "gflop": 1.0, "asked_gflop": 2.0, "state_mib": 3.0, "least_state_mib": 4.0,
        "temporary_mib": 5.0, "sent_mib": {"all-reduce": 6.0, "all-gather": 7.0},
        "in_flight_mib": {"all-reduce": 8.0}, "least_mib": {"a": 9.0, "b": 1.0},
    }  # fmt: skip
    head, _, line = scale.table({"2x1x1": row})
    assert "| all-gather | all-reduce |" in head
    assert line == "| 2 × 1 × 1 | 1 | 2 | 3 | 4 | 5 | 7 | 6 | 8 | 13 | 10 |"
