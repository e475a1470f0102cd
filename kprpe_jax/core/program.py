"""Compiled programs in files, which JAX alone can run: `jax.export`, checked.

A program is code for an accelerator: it computes on arrays and cannot touch files or
networks, unless it holds a custom call, which runs what a library of the host has
registered. Programs with custom calls are neither written nor read.
"""

import hashlib
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax import export

PLATFORMS = ("cpu", "cuda", "tpu")
# They say how arrays are spread, or check shapes, and run nothing.
_HARMLESS = (
    *("Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape"),
    "shape_assertion",  # of symbolic sides
)
_LARGEST = 1 << 28  # bytes; weights are arguments, so that programs are small


class ExportedProgram:
    """A compiled program.

    Attributes:
      platforms: it runs on, of PLATFORMS.
      sha256: of its bytes.
      call: of arrays; may be called inside of `jax.jit`.
    """

    def __init__(self, data: bytes, name: str):
        """Read a program.

        Args:
          data: that `make_program` gave.
          name: of the file, for messages.
        Raises: ValueError: not a program, one of another version of JAX, one with
          custom calls.
        """
        if len(data) > _LARGEST:
            raise ValueError(
                f"{name}: a program must have at most {_LARGEST >> 20} MiB; got "
                f"{len(data) >> 20}; weights lie beside it."
            )
        try:
            exported = export.deserialize(bytearray(data))
            text = exported.mlir_module()
        except Exception as error:  # flat buffers and MLIR raise errors of any kind
            reason = (str(error).splitlines() or [""])[0][:160]
            raise ValueError(
                f"{name}: is not readable as a program of JAX {jax.__version__} "
                f"({reason or type(error).__name__}); export it again."
            ) from error
        self._exported = exported
        self._name = name
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.platforms = tuple(exported.platforms)
        self.inputs = tuple(exported.in_avals)
        _refuse_custom_calls(text, name)

    def call(self, *arguments: Any) -> Any:
        """Run it.

        Raises: ValueError: for other platforms than the one that it would run on, or
          arguments of other shapes.
        """
        backend = jax.default_backend().replace("gpu", "cuda")
        if backend not in self.platforms:
            raise ValueError(
                f"{self._name}: the program is for {', '.join(self.platforms)}; got "
                f"{backend}; export it with --platforms {backend}."
            )
        try:
            return self._exported.call(*arguments)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{self._name}: {str(error).splitlines()[0][:300]}"
            ) from error


def make_program(
    function: Callable[..., Any],
    shapes: Sequence[Any],
    platforms: Sequence[str] = PLATFORMS,
) -> bytes:
    """Compile a function to a program.

    Args:
      function: of arrays, in lists and dicts; to such.
      shapes: of its arguments, whose sides may be symbols of `batch_symbols`.
      platforms: on which it shall run, of PLATFORMS.
    Raises: ValueError: unknown platforms; a function that needs fixed shapes, or holds
      custom calls.
    """
    unknown = set(platforms) - set(PLATFORMS)
    if unknown or not platforms:
        raise ValueError(
            f"--platforms must be some of {','.join(PLATFORMS)}; got "
            f"{','.join(platforms) or 'none'}."
        )
    exported = export.export(jax.jit(function), platforms=tuple(platforms))(*shapes)
    _refuse_custom_calls(exported.mlir_module(), "export")
    return bytes(exported.serialize())


def without_kernels(module: Any) -> Any:
    """The same network with XLA's attention: a Pallas kernel is a custom call."""
    if getattr(module, "attention", "xla") != "xla":
        module = module.clone(attention="xla")
    if hasattr(module, "backbone"):
        module = module.clone(backbone=without_kernels(module.backbone))
    return module


def batch_symbols(names: str) -> tuple[Any, ...]:
    """Sides of any size, at least 1, for shapes: "b, n"."""
    return export.symbolic_shape(names)


def write_program(path: pathlib.Path, data: bytes) -> dict[str, str]:
    """Write a program; returns what a description of its folder says of it."""
    path.write_bytes(data)
    return {"file": path.name, "sha256": hashlib.sha256(data).hexdigest()}


def read_program(
    folder: str | os.PathLike, about: Mapping[str, str]
) -> ExportedProgram:
    """Read a program of a folder.

    Args:
      folder: where it lies.
      about: of `write_program`.
    Raises: ValueError: no such file, a changed one; as `ExportedProgram`.
    """
    path = pathlib.Path(folder) / pathlib.PurePath(about["file"]).name
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"{path}: a program must have at most 256 MiB.")
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{path}: must be a program; got {error.strerror}; export it again."
        ) from error
    if hashlib.sha256(data).hexdigest() != about["sha256"]:
        raise ValueError(
            f"{path}: was changed after it was written: its SHA-256 is another one "
            "than program.json says; export it again."
        )
    return ExportedProgram(data, str(path))


def _refuse_custom_calls(text: str, name: str) -> None:
    """Every mention of a custom call must be of a harmless one."""
    for part in text.split("custom_call")[1:]:
        target = part[:200].partition("@")[2]
        found = next(
            (x for x in _HARMLESS if target.startswith((f"{x}(", f"{x} "))), ""
        )
        if not found or part[: part.find("@")].strip():
            label = target.partition("(")[0][:60] or "of another form"
            raise ValueError(
                f"{name}: a program must hold no custom call; got {label}; export the "
                "network with XLA's operations alone."
            )
