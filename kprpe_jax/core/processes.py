"""The processes of a run: how they find each other, and what was found."""

import os
import socket
import zlib
from collections.abc import Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils

FLAGS = "--coordinator, --num-processes and --process-id"


def initialize_distributed(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> str:
    """Join the other processes of this run, if there are any.

    Explicit arguments win; otherwise JAX looks for a cluster: Open MPI, SLURM, Cloud
    TPUs by their metadata or under GKE, one slice or several, and indexed jobs of
    Kubernetes. Call it before anything touches a device.

    Args:
      coordinator: "host:port" of process 0, or "auto" to let JAX find all three.
      num_processes: how many processes take part, >= 1.
      process_id: this one's number, 0 <= process_id < num_processes.
    Returns: by what they were found; "" = this process is alone.
    Raises: ValueError: some but not all of the three, or a number out of range.
    """
    if coordinator == "auto":
        jax.distributed.initialize()
        return "JAX, as --coordinator auto asks"
    given = (coordinator, num_processes, process_id)
    if any(value is not None for value in given):
        if any(value is None for value in given):
            raise ValueError(f"{FLAGS} belong together; got {given}")
        if not 0 <= process_id < num_processes:
            raise ValueError(
                "--process-id must lie in [0, num_processes); "
                f"got {process_id} of {num_processes}"
            )
        jax.distributed.initialize(coordinator, num_processes, process_id)
        return "the flags"
    found = find_cluster(os.environ)
    if found:
        jax.distributed.initialize()
    return found


def find_cluster(environ: Mapping[str, str]) -> str:
    """What would let the processes find each other; "" = nothing is there."""
    if "JAX_COORDINATOR_ADDRESS" in environ:
        return "JAX_COORDINATOR_ADDRESS"
    if int(environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return "SLURM"
    if len(environ.get("TPU_WORKER_HOSTNAMES", "").split(",")) > 1:
        return "TPU_WORKER_HOSTNAMES"
    from jax._src import clusters  # what `jax.distributed.initialize` asks

    for cluster in clusters.ClusterEnv._cluster_types:
        # A shell or script of a SLURM job that `srun` did not start is alone, whatever
        # SLURM_NTASKS says, and so is a pod that belongs to no indexed job.
        alone = cluster.name == "slurm" or (
            cluster.name == "k8s" and "JOB_COMPLETION_INDEX" not in environ
        )
        if not alone and not cluster.opt_in_only_method and cluster.is_env_present():
            return _NAMES.get(cluster.name, cluster.name)
    return ""


_NAMES = {
    "ompi": "Open MPI",
    "gcetpu": "the metadata of Cloud TPU",
    "gketpu": "GKE",
    "k8s": "Kubernetes",
}


def describe_processes(found_by: str, environ: Mapping[str, str]) -> list[str]:
    """Say how many processes, hosts, slices and devices there are, and by what.

    All processes must call it. A second line tells of a process that is alone though
    its environment speaks of others.

    Args:
      found_by: of `initialize_distributed`.
      environ: variables of the environment.
    """
    devices = jax.devices()
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    name = np.uint32(zlib.crc32(socket.gethostname().encode()))
    hosts = 1
    if jax.process_count() > 1:
        hosts = len(np.unique(multihost_utils.process_allgather(name)))
    lines = [
        f"processes: {jax.process_count()}, hosts: {hosts}, slices: {slices}, "
        f"{devices[0].platform} devices: {len(devices)}; "
        f"found by {found_by or 'nothing: no flags, no cluster'}"
    ]
    expected = expected_processes(environ)
    if jax.process_count() == 1 and expected:
        lines.append(
            f"warning: this process runs alone, though {expected}; start one on every "
            f"host (srun under SLURM, mpirun), or give {FLAGS}"
        )
    return lines


def expected_processes(environ: Mapping[str, str]) -> str:
    """What the environment says of several processes, in words; "" = nothing."""
    counts = {
        name: int(environ[name])
        for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "MEGASCALE_NUM_SLICES")
        if environ.get(name, "").isdecimal()
    }
    hosts = environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
    counts["TPU_WORKER_HOSTNAMES"] = len(hosts)
    return " and ".join(f"{k} says {n}" for k, n in counts.items() if n > 1)
