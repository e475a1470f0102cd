"""Devices: the mesh, and batches on it."""

import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp", "class")
BATCH_SPEC = PartitionSpec(AXES)  # every device takes its share of the rows


def data_mesh() -> Mesh:
    """All devices of every process as one data axis."""
    return make_mesh(dict.fromkeys(AXES, 1) | {"data": -1})


def make_mesh(
    sizes: Mapping[str, int], devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Arrange all devices as a mesh with the axes data, fsdp and class.

    Args:
      sizes: the size of each axis, >= 1; one of them may be -1, "the rest".
      devices: the devices to use; all of every process by default.
    Raises: ValueError: the sizes do not multiply to the number of devices; of several
      TPU slices, an axis `data` that is no multiple of them, for it alone spans them.
    """
    devices = jax.devices() if devices is None else devices
    shape = [sizes[axis] for axis in AXES]
    told = ", ".join(f"{axis}={sizes[axis]}" for axis in AXES)
    if shape.count(-1) > 1 or any(n < 1 and n != -1 for n in shape):
        raise ValueError(
            f"make_mesh: sizes must be at least 1 and one may be -1; got {told}"
        )
    known = math.prod(n for n in shape if n != -1)
    if len(devices) % known or (-1 not in shape and known != len(devices)):
        raise ValueError(
            f"make_mesh: a mesh with {told} does not fit {len(devices)} devices; "
            f"make the product of the sizes {len(devices)}, or set one of them to -1"
        )
    shape = [len(devices) // known if n == -1 else n for n in shape]
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    auto = (AxisType.Auto,) * 3
    if slices > 1:
        return Mesh(_arrange_slices(devices, shape, slices), AXES, axis_types=auto)
    return jax.make_mesh(tuple(shape), AXES, axis_types=auto, devices=devices)


def _arrange_slices(
    devices: Sequence[jax.Device], shape: Sequence[int], slices: int
) -> np.ndarray:
    """Devices [data, fsdp, class], of which `data` alone leaves a slice.

    Between slices there is the data-center network, a hundred times slower than the
    links inside: gradients are summed over it once a step, and nothing else.
    """
    data, fsdp, classes = shape
    if data % slices:
        raise ValueError(
            f"config.mesh: {slices} slices need an axis data that is a multiple, "
            f"since fsdp and class stay inside a slice; got data={data}"
        )
    return mesh_utils.create_hybrid_device_mesh(
        (data // slices, fsdp, classes),
        (slices, 1, 1),
        devices=devices,
        allow_split_physical_axes=True,  # as `jax.make_mesh` does of one slice
    )


def check_batch_size(
    batch_size: int,
    accumulate_steps: int,
    mesh: Mesh,
    *,
    field: str = "data.batch_size",
) -> None:
    """Check that each micro-batch of the global batch divides over the devices.

    Args:
      batch_size: rows of the global batch.
      accumulate_steps: micro-batches that it is cut into.
      mesh: the devices.
      field: of the config, that the batch size comes from.
    Raises: ValueError: it does not, or there are no rows.
    """
    unit = mesh.size * accumulate_steps
    if batch_size < 1 or batch_size % unit:
        parts = f" x {accumulate_steps} accumulation steps"
        raise ValueError(
            f"{field}: {batch_size} rows do not divide over {mesh.size} devices"
            f"{parts if accumulate_steps > 1 else ''}; take a positive multiple of "
            f"{unit}"
        )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Give the sharding of a batch: rows over all axes of the mesh."""
    return NamedSharding(mesh, BATCH_SPEC)


def replicated(mesh: Mesh) -> NamedSharding:
    """Give the sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Put this process's rows on its devices, as parts of the global batch.

    Args:
      batch: arrays [b, ...], b = global rows / processes.
      mesh: the mesh.
    Returns: global arrays [b * processes, ...], sharded over their rows.
    """
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, rows)
        for name, rows in batch.items()
    }
