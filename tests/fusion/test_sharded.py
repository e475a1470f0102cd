import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from kprpe_jax.core.mesh import AXES, make_mesh
from kprpe_jax.fusion.sharded import fuse_sharded
from tests.fusion.tiny import (
    draw_sets,
    draw_variables,
    fuser,
    select,
    tiny_model,
    updater,
)
from tests.quick import quick_jit

TOLERANCE = dict(rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [0, 1])
def test_eight_devices_equal_a_stream_of_eight_batches(rng, depth):
    """And, where images do not look at each other, one batch; with one sum."""
    model, mesh = tiny_model(depth=depth), make_mesh({"data": 4, "fsdp": 2, "class": 1})
    mask = np.ones((2, 24), bool)
    mask[0, 17:], mask[1, :2] = False, False
    variables, sets = draw_variables(model, rng), draw_sets(rng, 24, mask)
    place = NamedSharding(mesh, PartitionSpec(None, AXES))
    spread = jax.device_put(sets, place)
    run = quick_jit(
        lambda variables, sets: fuse_sharded(
            model, variables, sets, mesh=mesh, axes=AXES
        )
    )
    program = run.lower(variables, spread).compile()
    assert program.as_text().count(" all-reduce(") == 1
    got = program(variables, spread)

    update, state = updater(model, variables), model.init_state(2)
    for part in np.split(np.arange(24), 8):
        state = update(state, select(sets, part))
    want = [model.apply(variables, state, method="finalize")]
    if depth == 0:
        want.append(fuser(model, variables)(sets))
    for result in want:
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(result), strict=True):
            np.testing.assert_allclose(a, b, **TOLERANCE)


@pytest.mark.slow
def test_a_mesh_of_explicit_axes(rng):
    """The default of `jax.make_mesh`; images are on the host, or already placed."""
    model, mesh = tiny_model(depth=0), jax.make_mesh((2,), ("data",))
    assert mesh.axis_types == (AxisType.Explicit,)
    variables, sets = draw_variables(model, rng), draw_sets(rng, 4)
    place = NamedSharding(mesh, PartitionSpec(None, "data"))
    placed = jax.device_put(sets, place)
    want = fuser(model, variables)(sets)
    for images in (sets, placed):
        got = fuse_sharded(model, variables, images, mesh=mesh, axes="data")
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(a, b, **TOLERANCE)


def test_images_must_divide_over_the_devices(rng):
    model, mesh = tiny_model(), make_mesh({"data": 8, "fsdp": 1, "class": 1})
    with pytest.raises(ValueError, match="9 images per set do not divide over 8"):
        fuse_sharded(model, {}, draw_sets(rng, 9), mesh=mesh, axes="data")
