"""What chips can do, as their makers publish it."""

from typing import NamedTuple


class Chip(NamedTuple):
    """A TPU or a GPU.

    Attributes:
      name: as the platform gives it.
      memory: bytes.
      bandwidth: of the memory, bytes a second.
      bfloat16: peak of dense products, FLOP/s.
    """

    name: str
    memory: int
    bandwidth: float
    bfloat16: float


# Source: Google Cloud's documentation, the page of each TPU version.
TPUS = {
    "v4": Chip("TPU v4", 32 * 2**30, 1.228e12, 275e12),
    "v5e": Chip("TPU v5 lite", 16 * 2**30, 0.819e12, 197e12),
    "v5p": Chip("TPU v5", 95 * 2**30, 2.765e12, 459e12),
    "v6e": Chip("TPU v6 lite", 32 * 2**30, 1.640e12, 918e12),
}
# Source: NVIDIA's data sheets.
GPUS = {
    "h100": Chip("NVIDIA H100 80GB HBM3", 80 * 10**9, 3.35e12, 989e12),
    "h200": Chip("NVIDIA H200", 141 * 10**9, 4.8e12, 989e12),
}
