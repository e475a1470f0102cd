"""Rules over parameter paths that say how the training state lies on the mesh."""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kprpe_jax.core import mesh as mesh_lib

Rules = Sequence[tuple[str, PartitionSpec]]

MIN_SHARDED_SIZE = 2**10  # elements; below, a gather costs more than the copy
_SCANNED = re.compile(r"(^|/)blocks/")  # a leading layer axis, which scan walks over


def path_of(key_path: tuple) -> str:
    """Write a pytree key path as "a/b/kernel"."""
    return jax.tree_util.keystr(key_path, simple=True, separator="/")


def flatten_with_paths(tree: Any) -> dict[str, Any]:
    """Give a tree's leaves as {"a/b/kernel": leaf}."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {path_of(path): leaf for path, leaf in leaves}


def parameter_spec(
    path: str, shape: Sequence[int], rules: Rules, mesh: Mesh
) -> PartitionSpec:
    """Choose how one parameter is split.

    The first rule whose regex is found in `path` decides. Without one, a mesh with
    fsdp > 1 splits the largest dimension that fsdp divides (of a scanned layer not the
    layer axis), and small parameters stay whole.

    Args:
      path: "a/b/kernel".
      shape: the parameter's shape.
      rules: (regex, PartitionSpec) pairs, tried in order.
      mesh: the mesh whose axes the specs name.
    Raises: ValueError: the deciding rule names an unknown axis, more dimensions than
      the parameter has, or a dimension that its axes do not divide.
    """
    for pattern, spec in rules:
        if re.search(pattern, path):
            _check_spec(path, shape, pattern, spec, mesh)
            return spec
    fsdp = mesh.shape["fsdp"]
    if fsdp == 1 or math.prod(shape) < MIN_SHARDED_SIZE:
        return PartitionSpec()
    first = 1 if _SCANNED.search(path) else 0
    fitting = [d for d in range(first, len(shape)) if shape[d] % fsdp == 0]
    if not fitting:
        return PartitionSpec()
    largest = max(fitting, key=lambda d: shape[d])
    return PartitionSpec(*[None] * largest, "fsdp")


def state_shardings(abstract_state: Any, rules: Rules, mesh: Mesh) -> Any:
    """Give a training state's shardings from its shapes alone.

    Parameters follow `parameter_spec`; each array of the optimizer state follows the
    parameter whose path its own path ends with and whose shape it has; everything else
    (collections, step, random key) is whole on every device.

    Args:
      abstract_state: the TrainState from `jax.eval_shape`.
      rules: the task's rules.
      mesh: the mesh.
    Returns: a tree of NamedSharding like `abstract_state`.
    Raises: ValueError: as `parameter_spec`.
    """
    parameters = {
        path: (leaf.shape, parameter_spec(path, leaf.shape, rules, mesh))
        for path, leaf in flatten_with_paths(abstract_state.params).items()
    }

    def follow(key_path, leaf):
        # The longest suffix first: "b/kernel" must not take the spec of "kernel".
        parts = path_of(key_path).split("/")
        for start in range(len(parts)):
            shape, spec = parameters.get("/".join(parts[start:]), (None, None))
            if shape == leaf.shape:
                return NamedSharding(mesh, spec)
        return mesh_lib.replicated(mesh)

    def whole(tree):
        return jax.tree.map(lambda _: mesh_lib.replicated(mesh), tree)

    params = jax.tree_util.tree_map_with_path(
        lambda path, _: NamedSharding(mesh, parameters[path_of(path)][1]),
        abstract_state.params,
    )
    opt_state = jax.tree_util.tree_map_with_path(follow, abstract_state.opt_state)
    return whole(abstract_state).replace(params=params, opt_state=opt_state)


def bytes_per_device(tree: Any) -> int:
    """Count the bytes that one device holds of a tree of (abstract) sharded arrays."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _check_spec(path, shape, pattern, spec, mesh) -> None:
    where = f"sharding rule {pattern!r}: {path} {tuple(shape)}"
    if len(spec) > len(shape):
        raise ValueError(f"{where} has {len(shape)} dimensions; {spec} has {len(spec)}")
    for dimension, axes in enumerate(spec):
        axes = () if axes is None else (axes,) if isinstance(axes, str) else axes
        for axis in axes:
            if axis not in mesh.shape:
                raise ValueError(
                    f"{where} is split over the axis {axis!r}; the mesh has "
                    + ", ".join(mesh.shape)
                )
        parts = math.prod(mesh.shape[axis] for axis in axes)
        if shape[dimension] % parts:
            raise ValueError(
                f"{where} cannot be split along dimension {dimension}: "
                f"{shape[dimension]} does not divide by the {parts} parts of "
                f"{'x'.join(axes)}; change the mesh or the size"
            )
