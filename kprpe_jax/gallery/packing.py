"""Patches as bytes: exact, in half the space, or in a quarter."""

import ml_dtypes
import numpy as np

KINDS = ("float32", "bfloat16", "int8", "none")


def pack(patches: np.ndarray, kind: str) -> bytes:
    """Patches as bytes.

    Args:
      patches: float32 [N, C].
      kind: `float32`; `bfloat16`; `int8`, each patch in steps of its largest element /
        127, the step stored before it as a float32; `none`.
    """
    if kind == "none":
        return b""
    if kind != "int8":
        return patches.astype(_dtype(kind)).tobytes()
    step = np.abs(patches).max(-1, keepdims=True).astype(np.float32) / 127
    steps = np.round(patches / np.where(step > 0, step, 1)).astype(np.int8)
    return step.tobytes() + steps.tobytes()


def unpack(data: bytes, kind: str, shape: tuple[int, int]) -> np.ndarray:
    """Patches float32 [N, C] of what `pack` made.

    Args:
      data: the bytes.
      kind: as it was packed, not `none`.
      shape: (N, C).
    """
    if kind != "int8":
        return np.frombuffer(data, _dtype(kind)).reshape(shape).astype(np.float32)
    step = np.frombuffer(data, np.float32, shape[0])[:, None]
    steps = np.frombuffer(data, np.int8, offset=4 * shape[0]).reshape(shape)
    return step * steps


def _dtype(kind: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if kind == "bfloat16" else kind)
