"""An operation that few images of a batch draw."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def apply_where(
    applies: jax.Array, operation: Callable[[jax.Array], jax.Array], image: jax.Array
) -> jax.Array:
    """Apply an operation to an image, or leave the image as it is.

    Of a batch (under `jax.vmap`), a TPU takes the images that drew the operation one
    after another, in a loop that is as long as there are such images; a GPU applies it
    to all and selects.

    Args:
      applies: bool scalar.
      operation: image -> image of the same shape and type, with no traced values of its
        own.
      image: any shape.
    Returns: as `image`.
    """

    @jax.custom_batching.custom_vmap
    def run(applies: jax.Array, image: jax.Array) -> jax.Array:
        return jax.lax.cond(applies, operation, lambda image: image, image)

    @run.def_vmap
    def _run_batch(size, batched, applies, images):
        if not batched[0]:
            applies = jnp.broadcast_to(applies, (size,))
        if not batched[1]:
            images = jnp.broadcast_to(images, (size, *images.shape))
        done = jax.lax.platform_dependent(
            applies,
            images,
            tpu=lambda *batch: in_turns(*batch, operation),
            default=lambda *batch: side_by_side(*batch, operation),
        )
        return done, True

    return run(applies, image)


def in_turns(
    applies: jax.Array, images: jax.Array, operation: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """Apply an operation to the images [B, ...] for which `applies` [B], in a loop."""
    order = jnp.argsort(~applies)  # stable: first those that drew it

    def step(i: jax.Array, images: jax.Array) -> jax.Array:
        done = operation(jax.lax.dynamic_index_in_dim(images, order[i], keepdims=False))
        return jax.lax.dynamic_update_index_in_dim(images, done, order[i], 0)

    return jax.lax.fori_loop(0, applies.sum(), step, images)


def side_by_side(
    applies: jax.Array, images: jax.Array, operation: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """Apply an operation to all images [B, ...]; take it where `applies` [B]."""
    applies = applies.reshape(-1, *(1,) * (images.ndim - 1))
    return jnp.where(applies, jax.vmap(operation)(images), images)
