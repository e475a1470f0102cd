"""What chips can do, as their makers publish it."""

from typing import NamedTuple


class Chip(NamedTuple):
    """A TPU or a GPU.

    Attributes:
      name: as the platform gives it.
      memory: bytes.
      bandwidth: of the memory, bytes a second.
      bfloat16: peak of dense products, FLOP/s.
      source: of these figures.
    """

    name: str
    memory: int
    bandwidth: float
    bfloat16: float
    source: str


_GOOGLE, _NVIDIA = "Google Cloud's page of the TPU", "NVIDIA's data sheet"
TPUS = {
    "v4": Chip("TPU v4", 32 * 2**30, 1.228e12, 275e12, _GOOGLE),
    "v5e": Chip("TPU v5 lite", 16 * 2**30, 0.819e12, 197e12, _GOOGLE),
    "v5p": Chip("TPU v5", 95 * 2**30, 2.765e12, 459e12, _GOOGLE),
    "v6e": Chip("TPU v6 lite", 32 * 2**30, 1.640e12, 918e12, _GOOGLE),
}
GPUS = {
    "h100": Chip("NVIDIA H100 80GB HBM3", 80 * 10**9, 3.35e12, 989e12, _NVIDIA),
    "h200": Chip("NVIDIA H200", 141 * 10**9, 4.8e12, 989e12, _NVIDIA),
}
_OTHER_NAMES = {"TPU v5e": "v5e", "TPU v5p": "v5p", "TPU v6e": "v6e"}


def find_chip(device_kind: str) -> Chip | None:
    """The chip that a device is, by `jax.Device.device_kind`; None = unknown."""
    known = {chip.name: chip for chip in (*TPUS.values(), *GPUS.values())}
    return known.get(device_kind) or TPUS.get(_OTHER_NAMES.get(device_kind, ""))
