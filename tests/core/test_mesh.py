import dataclasses

import numpy as np
import pytest

from kprpe_jax.core import mesh as mesh_lib


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [((-1, 1, 1), (8, 1, 1)), ((2, -1, 2), (2, 2, 2)), ((1, 8, 1), (1, 8, 1))],
)
def test_mesh_takes_all_devices(sizes, shape):
    mesh = mesh_lib.make_mesh(dict(zip(mesh_lib.AXES, sizes, strict=True)))
    assert tuple(mesh.shape.values()) == shape
    assert tuple(mesh.shape) == ("data", "fsdp", "class")


@pytest.mark.parametrize("sizes", [(3, -1, 1), (2, 2, 1), (16, 1, 1), (4, 4, 1)])
def test_mesh_that_does_not_fit(sizes):
    with pytest.raises(ValueError, match=r"does not fit 8 devices; make the product"):
        mesh_lib.make_mesh(dict(zip(mesh_lib.AXES, sizes, strict=True)))


@pytest.mark.parametrize("sizes", [(-1, -1, 1), (0, 1, 1), (-2, 1, 1)])
def test_mesh_with_senseless_sizes(sizes):
    with pytest.raises(ValueError, match=r"at least 1 and one may be -1; got data="):
        mesh_lib.make_mesh(dict(zip(mesh_lib.AXES, sizes, strict=True)))


def test_batch_rows_lie_over_all_axes():
    mesh = mesh_lib.make_mesh({"data": 2, "fsdp": 2, "class": 2})
    rows = np.arange(16 * 3).reshape(16, 3)
    batch = mesh_lib.put_batch({"x": rows}, mesh)
    np.testing.assert_array_equal(batch["x"], rows)
    assert {s.data.shape for s in batch["x"].addressable_shards} == {(2, 3)}
    assert len({str(s.index) for s in batch["x"].addressable_shards}) == 8


def test_batch_that_does_not_divide():
    mesh = mesh_lib.make_mesh({"data": -1, "fsdp": 1, "class": 1})
    mesh_lib.check_batch_size(32, 4, mesh)
    with pytest.raises(ValueError, match="24 rows .* 8 devices x 2 .* multiple of 16"):
        mesh_lib.check_batch_size(24, 2, mesh)


@dataclasses.dataclass(frozen=True)
class Chip:
    """What a mesh asks of a device."""

    id: int
    slice_index: int
    process_index: int
    platform: str = "cpu"
    device_kind: str = "cpu"
    coords: tuple[int, int, int] = (0, 0, 0)
    core_on_chip: int = 0


def test_data_alone_spans_slices():
    devices = [Chip(i, i // 8, i // 4) for i in range(16)]
    shape = {"data": -1, "fsdp": 2, "class": 2}
    mesh = mesh_lib.make_mesh(shape, devices)
    assert dict(mesh.shape) == {"data": 4, "fsdp": 2, "class": 2}
    slices = np.vectorize(lambda device: device.slice_index)(mesh.devices)
    assert slices[:, 0, 0].tolist() == [0, 0, 1, 1]
    assert (slices == slices[:, :1, :1]).all()
    with pytest.raises(ValueError, match="2 slices need an axis data .* got data=1"):
        mesh_lib.make_mesh({"data": 1, "fsdp": 8, "class": 2}, devices)


def test_an_axis_of_half_a_slice_of_tpus():
    """4 x 4 chips, of which 8 share the class centers: no side of the torus is 8."""
    kind = "tpu", "TPU v5 lite"
    devices = [
        Chip(i, i // 16, i // 4, *kind, coords=(i % 4, i // 4 % 4, 0))
        for i in range(32)
    ]
    mesh = mesh_lib.make_mesh({"data": -1, "fsdp": 1, "class": 8}, devices)
    assert dict(mesh.shape) == {"data": 4, "fsdp": 1, "class": 8}
    slices = np.vectorize(lambda device: device.slice_index)(mesh.devices)
    assert slices[:, 0, 0].tolist() == [0, 0, 1, 1]
    assert (slices == slices[:, :1, :1]).all()
