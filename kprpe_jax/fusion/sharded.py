"""One set on many devices."""

import math
from typing import Any

import jax
from jax.sharding import Mesh, PartitionSpec

from kprpe_jax.core.constraints import auto_axes
from kprpe_jax.fusion.cluster_aggregate import ClusterAggregate, Fused, ImageSets
from kprpe_jax.fusion.state import FusionState, merge_devices


def fuse_sharded(
    model: ClusterAggregate,
    variables: Any,
    sets: ImageSets,
    *,
    mesh: Mesh,
    axes: str | tuple[str, ...],
) -> Fused:
    """Fuse sets whose images are spread over devices.

    Each device takes its images for one batch of the stream; the states meet in one
    `psum`.

    Args:
      model, variables: in evaluation.
      sets: N a multiple of the devices along `axes`; pad with masked images.
      mesh: with axes of any type (`auto_axes`).
      axes: of the mesh, over which N is sharded.
    Returns: the same on every device.
    Raises: ValueError: N does not divide over the devices.
    """
    names = (axes,) if isinstance(axes, str) else axes
    devices = math.prod(mesh.shape[name] for name in names)
    batch, images = sets.mask.shape
    if images % devices:
        raise ValueError(
            f"fuse_sharded: {images} images per set do not divide over {devices} "
            f"devices; pad with masked images to a multiple of {devices}."
        )

    def fuse(variables: Any, sets: ImageSets) -> FusionState:
        state = model.init_state(batch)
        state = model.apply(variables, state, sets, method="update")
        return merge_devices(state, axes)

    sharded = jax.shard_map(
        fuse,
        mesh=auto_axes(mesh),
        in_specs=(PartitionSpec(), PartitionSpec(None, axes)),
        out_specs=PartitionSpec(),
    )
    return model.apply(variables, sharded(variables, sets), method="finalize")
