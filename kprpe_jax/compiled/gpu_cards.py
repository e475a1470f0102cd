"""GPUs that are not there, for the compiler.

XLA compiles for a card from its description. That needs NVIDIA's half of JAX and the
assembler, which no requirements file has; into an environment of its own:

    pip install "jax-cuda12-plugin==$JAX" "jax-cuda12-pjrt==$JAX" nvidia-cuda-nvcc-cu12

with JAX the version of jax. No driver, toolkit or GPU is needed.
"""

import importlib.util
import os
import pathlib
from typing import Any

import jax
from jax.experimental import topologies

from kprpe_jax.core.chips import Chip

# XLA picks the algorithm of a product by trying it, which it cannot; untried ones may
# not compile. Products go to cuBLAS then.
COMPILER_OPTIONS = {"xla_gpu_enable_triton_gemm": False}
ARCHITECTURE = "sm_90a"  # of all `chips.GPUS`


# Both have the chip GH100 with 132 processors. XLA's text format.
_DESCRIPTION = """
platform_name: "CUDA"
device_description_str: "{name}"
dnn_version_info {{ major: 9 minor: 1 }}
gpu_device_info {{
  cuda_compute_capability {{ major: 9 }}
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  l2_cache_size: 52428800
  memory_bandwidth: {bandwidth:.0f}
  device_memory_size: {memory}
}}
"""


def describe(card: Chip) -> str:
    """The card as XLA's `target_config`."""
    return _DESCRIPTION.format(**card._asdict())


def find_assembler() -> pathlib.Path | None:
    """The file `ptxas` of the installed package."""
    try:
        found = importlib.util.find_spec("nvidia.cuda_nvcc")
    except ModuleNotFoundError:
        return None
    places = [] if found is None else list(found.submodule_search_locations or ())
    paths = [pathlib.Path(place, "bin", "ptxas") for place in places]
    return next((path for path in paths if path.is_file()), None)


def describe_devices(card: Chip, count: int = 1) -> list[Any]:
    """Devices to compile for, eight in a machine; ValueError: packages are missing."""
    assembler = find_assembler()
    if assembler is None or importlib.util.find_spec("jax_cuda12_plugin") is None:
        raise ValueError(
            "compiling for a GPU that is not there needs jax-cuda12-plugin, "
            "jax-cuda12-pjrt and nvidia-cuda-nvcc-cu12, the first two of the version "
            "of jax; install them into an environment of their own"
        )
    os.environ["PATH"] += os.pathsep + str(assembler.parent)  # where XLA looks for it
    jax.config.update("jax_platforms", "cpu")  # nothing runs
    per_machine = min(count, 8)
    topology = topologies.get_topology_desc(
        platform="cuda",
        topology_name="",
        target_config=describe(card),
        topology=f"1x{count // per_machine}x{per_machine}",
    )
    return list(topology.devices)
