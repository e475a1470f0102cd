"""Devices that are not there, for the compiler: TPU slices and machines of GPUs."""

import importlib.util
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from kprpe_jax.compiled import gpu_cards
from kprpe_jax.core.chips import GPUS, TPUS, Chip

# libtpu asks for a machine's metadata unless it is told where it is. The lock keeps two
# programs from one TPU; here there is none.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


class Topology(NamedTuple):
    """Described devices.

    Attributes:
      platform: "tpu" or "gpu".
      devices: in the order in which a mesh takes them.
      chip: of which each device is one.
      compiler_options: of XLA.
    """

    platform: str
    devices: list[Any]
    chip: Chip
    compiler_options: Mapping[str, Any]


def describe_topology(name: str, *, slices: int = 1) -> Topology:
    """Describe devices by the name of their arrangement.

    Args:
      name: of TPUs VERSION:AxB or VERSION:AxBxC, such as v5e:16x16; of GPUs CARD:COUNT,
        such as h200:8.
      slices: of TPUs, each of this arrangement, which the data-center network joins.
    Raises: ValueError: an unknown version, card or arrangement; a compiler that is not
      installed.
    """
    version, _, shape = name.partition(":")
    jax.config.update("jax_platforms", "cpu")  # nothing runs
    if version in GPUS and re.fullmatch(r"[1-9]\d*", shape):
        if slices > 1:
            raise ValueError(f"--slices {slices}: only TPUs have slices; leave it out")
        devices = gpu_cards.describe_devices(GPUS[version], int(shape))
        return Topology("gpu", devices, GPUS[version], gpu_cards.COMPILER_OPTIONS)
    if version not in TPUS or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){1,2}", shape):
        raise ValueError(
            f"--topology {name}: must be VERSION:AxB[xC] with a version of "
            f"{', '.join(TPUS)}, such as v5e:16x16, or CARD:COUNT with a card of "
            f"{', '.join(GPUS)}, such as h200:8"
        )
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            f"--topology {name}: needs the TPU compiler; install the extra [aot] "
            "(pip install 'kprpe_jax[aot]'), best in an environment of its own, since "
            "JAX looks for a TPU wherever it is installed"
        )
    os.environ.update(_ENVIRONMENT)
    several = {"num_slices": slices} if slices > 1 else {}
    try:
        found = topologies.get_topology_desc(
            platform="tpu", topology_name=name, **several
        )
    except Exception as error:  # of the plugin, of no type of its own
        raise ValueError(
            f"--topology {name}: the TPU compiler knows no such arrangement "
            f"({' '.join(str(error).split())[:200]})"
        ) from None
    return Topology("tpu", list(found.devices), TPUS[version], {})
