"""Read a PyTorch state dict from a file or a mapping, as float32 NumPy arrays.

Nothing is ever unpickled: PyTorch's files are read by `torch_file`, those of before
version 0.4 by PyTorch's weights-only reader, `.npz` files by `core.npz`; files of
dlib and of TensorFlow Lite by `dlib_file` and `tflite_file`.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from kprpe_jax.core.npz import read_npz
from kprpe_jax.weights.dlib_file import read_dlib_file
from kprpe_jax.weights.onnx_networks import read_onnx_weights
from kprpe_jax.weights.rules import shorten
from kprpe_jax.weights.tflite_file import read_tflite_file
from kprpe_jax.weights.torch_file import is_torch_file, read_torch_file

_LOG = logging.getLogger(__name__)
PREFIXES = ("module.", "net.", "model.")
# Of parts that stand beside others; a stack of these and of PREFIXES names one.
_PARTS = (*PREFIXES, "backbone.", "aggregator.", "_orig_mod.")
SUFFIXES = (
    ".pt", ".pth", ".ckpt", ".safetensors", ".npz", ".onnx", ".dat", ".tflite"
)  # fmt: skip
# Keys under which training scripts nest weights.
_CONTAINERS = ("state_dict", "state_dict_backbone", "net_state_dict", "model")


def load_state_dict(
    source: str | Path | Mapping[str, Any], prefixes: tuple[str, ...] = PREFIXES
) -> dict[str, np.ndarray]:
    """Names and arrays of a state dict.

    Args:
      source: a file with one of SUFFIXES, `.onnx` of a network of `onnx_networks`; or
        a mapping from names to NumPy or JAX arrays or PyTorch tensors; weights nested
        under `state_dict` or `model` are found.
      prefixes: stripped from the names, again and again, where all names have them.
    Returns: arrays by name; float16, bfloat16 and float64 become float32, which is
      logged of the halves, as is what stands beside nested weights.
    Raises: ValueError: the file is missing, corrupt, of another kind or holds something
      else than arrays; `.pt` without PyTorch installed.
    """
    if isinstance(source, Mapping):
        origin, tree = "the mapping", source
    else:
        origin, tree = str(source), _read(Path(source))
    while nested := [k for k in _CONTAINERS if isinstance(tree.get(k), Mapping)]:
        if beside := [str(name) for name in tree if name != nested[0]]:
            _LOG.info(
                "%s: %s is read, and not what is beside it: %s",
                origin, nested[0], shorten(beside),
            )  # fmt: skip
        tree = tree[nested[0]]
    if not tree:
        raise ValueError(f"{origin} holds no arrays; give weights.")
    arrays = {str(name): _to_numpy(value) for name, value in tree.items()}
    halves = Counter(str(x.dtype) for x in tree.values() if _is_half(x))
    for kind, count in halves.items():
        _LOG.info("%s: %d arrays are %s, read as float32", origin, count, kind)
    foreign = [name for name, array in arrays.items() if array.dtype == object]
    if foreign:
        raise ValueError(
            f"{origin} must map names to arrays; {shorten(foreign)} "
            f"hold something else; give the state dict itself."
        )
    while common := [p for p in prefixes if all(name.startswith(p) for name in arrays)]:
        arrays = {name.removeprefix(common[0]): a for name, a in arrays.items()}
    return arrays


def select_part(
    arrays: dict[str, np.ndarray], wanted: Callable[[], Iterable[str]]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Choose the network among the parts of a file.

    Args:
      arrays: of `load_state_dict`.
      wanted: gives the names of the network's weights; called only where some of the
        arrays' names begin like those of a part ("model.", "backbone." ...).
    Returns: the arrays of the part that has most of these names, without its prefix,
      and the names that are left aside; all arrays where no part has any, or where a
      name that it lacks stands elsewhere.
    """
    prefixes = part_prefixes(arrays)
    if not prefixes:
        return arrays, []
    names = set(wanted())
    counts = {
        prefix: sum(prefix + name in arrays for name in names)
        for prefix in ("", *prefixes)
    }
    best = max(counts, key=counts.__getitem__)  # the first, the shortest, of equals
    if not best:
        return arrays, []
    aside = [name for name in arrays if not name.startswith(best)]
    part = {k.removeprefix(best): v for k, v in arrays.items() if k.startswith(best)}
    missing = names - part.keys()
    if any(k.removeprefix(x) in missing for k in aside for x in ("", *_prefixes(k))):
        return arrays, []  # one network whose names have several prefixes
    return part, aside


def part_prefixes(names: Iterable[str]) -> list[str]:
    """The prefixes of parts with which some names begin, the shortest first."""
    return sorted({prefix for name in names for prefix in _prefixes(name)}, key=len)


def _prefixes(name: str) -> Iterator[str]:
    """The prefixes of parts with which a name begins: "model.", "model.net." ..."""
    prefix = ""
    while found := [x for x in _PARTS if name.startswith(x, len(prefix))]:
        prefix += found[0]
        yield prefix


def _read(path: Path) -> Mapping[str, Any]:
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"{path}: unknown file type {path.suffix!r}; use one of "
            f"{', '.join(SUFFIXES)}."
        )
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; check the path.")
    readers = {
        ".safetensors": _read_safetensors,
        ".npz": _read_npz,
        ".onnx": _read_onnx,
        ".dat": read_dlib_file,
        ".tflite": read_tflite_file,
    }
    reader = readers.get(path.suffix, _read_torch)
    tree = reader(path)
    if not isinstance(tree, Mapping):
        raise ValueError(
            f"{path} must hold a mapping from names to arrays; got "
            f"{type(tree).__name__}; save the state dict."
        )
    return tree


def _read_torch(path: Path) -> Any:
    if is_torch_file(path):
        try:
            return read_torch_file(path)
        except ValueError as error:
            raise _unreadable(path, error) from error
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            f"{path} does not begin as PyTorch's files do; give the "
            "whole file, or for one of before PyTorch 0.4 install the `torch` extra "
            "(pip install '.[torch]')."
        ) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the reader has no common error type
        raise _unreadable(path, error) from error


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _read_onnx(path: Path) -> Mapping[str, Any]:
    try:
        return read_onnx_weights(path)
    except ValueError as error:
        raise ValueError(f"cannot read {path}: {error}.") from error


def _read_npz(path: Path) -> Mapping[str, Any]:
    try:
        return read_npz(path)
    except ValueError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ValueError:
    reason = (str(error).splitlines() or [""])[0][:200].rstrip(". ")
    return ValueError(
        f"cannot read {path} as {path.suffix} weights "
        f"({type(error).__name__}: {reason}); the file is corrupt, of another kind or "
        f"holds more than weights."
    )


def _is_half(value: Any) -> bool:
    """Whether an array or tensor has floating-point numbers of 16 bits or fewer."""
    return (
        str(getattr(value, "dtype", ""))
        .removeprefix("torch.")
        .startswith(("float16", "bfloat16", "float8"))
    )


def _to_numpy(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # a PyTorch tensor, whether or not we can import it
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    if not hasattr(value, "dtype"):
        return np.asarray(None, object)
    array = np.asarray(value)
    if jnp.issubdtype(array.dtype, jnp.floating):  # knows bfloat16, NumPy does not
        array = array.astype(np.float32, copy=False)
    return array
