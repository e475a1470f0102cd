"""Devices: several processes, the mesh, and batches on it."""

import math
import os
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp", "class")
BATCH_SPEC = PartitionSpec(AXES)  # every device takes its share of the rows


def initialize_distributed(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> bool:
    """Join the other processes of this run, if there are any.

    Explicit arguments win; otherwise the environment is asked for a SLURM step of
    several tasks, a TPU slice of several hosts, or JAX_COORDINATOR_ADDRESS. Call it
    before anything touches a device.

    Args:
      coordinator: "host:port" of process 0, or "auto" to let JAX find all three.
      num_processes: how many processes take part, >= 1.
      process_id: this one's number, 0 <= process_id < num_processes.
    Returns: whether `jax.distributed` was initialized.
    Raises: ValueError: some but not all of the three, or a number out of range.
    """
    if coordinator == "auto":
        jax.distributed.initialize()
        return True
    given = (coordinator, num_processes, process_id)
    if any(value is not None for value in given):
        if any(value is None for value in given):
            raise ValueError(
                "initialize_distributed: coordinator, num_processes and process_id "
                f"belong together; got {given}"
            )
        if not 0 <= process_id < num_processes:
            raise ValueError(
                "initialize_distributed: process_id must lie in [0, num_processes); "
                f"got {process_id} of {num_processes}"
            )
        jax.distributed.initialize(coordinator, num_processes, process_id)
        return True
    if _environment_has_several_processes(os.environ):
        jax.distributed.initialize()
        return True
    return False


def _environment_has_several_processes(environ: Mapping[str, str]) -> bool:
    # A shell inside a SLURM allocation has SLURM_NTASKS but no SLURM_STEP_ID: there
    # is one process then, and waiting for the others would hang.
    slurm_tasks = int(environ.get("SLURM_STEP_NUM_TASKS", "1"))
    tpu_hosts = environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
    return slurm_tasks > 1 or len(tpu_hosts) > 1 or "JAX_COORDINATOR_ADDRESS" in environ


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
    Raises: ValueError: the sizes do not multiply to the number of devices.
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
    return jax.make_mesh(
        tuple(shape), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices
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
