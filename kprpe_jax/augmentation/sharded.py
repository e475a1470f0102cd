"""Augmentation on a mesh: every device sees to its own images."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from kprpe_jax.augmentation.recipe import Recipe, augment
from kprpe_jax.augmentation.spatial import FACE_MIRROR


def augment_sharded(
    rng: jax.Array,
    images: jax.Array,
    keypoints: jax.Array,
    recipe: Recipe,
    *,
    mesh: Mesh,
    mirror: Sequence[int] = FACE_MIRROR,
) -> tuple[jax.Array, jax.Array]:
    """Augment a batch that lies over all axes of a mesh, row by row.

    What becomes of an image is what `augment` makes of it. Left to itself, XLA may
    gather the whole batch on every device, for images that take turns.

    Args:
      rng: a random key; image i of the global batch gets `fold_in(rng, i)`.
      images, keypoints, recipe, mirror: as `augment`; B is a multiple of the devices.
      mesh: the devices.
    Returns: as `augment`.
    """
    rngs = jax.vmap(jax.random.fold_in, (None, 0))(rng, jnp.arange(len(images)))
    rows = PartitionSpec(mesh.axis_names)
    return jax.shard_map(
        partial(augment, recipe=recipe, mirror=mirror),
        mesh=mesh,
        in_specs=(rows, rows, rows),
        out_specs=(rows, rows),
        check_vma=False,
    )(rngs, images, keypoints)
