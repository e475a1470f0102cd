"""Images changed a little so that a network takes them for somebody else."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from kprpe_jax.core.unit import unit


def attack_embeddings(
    rng: Array,
    images: Array,
    embed: Callable[[Array], Array],
    *,
    epsilon: float = 8 / 255,
    step: float = 2 / 255,
    iterations: int = 10,
) -> Array:
    """Projected gradient descent on the cosine with the image's own embedding.

    Source: Madry et al., Toward deep learning models resistant to adversarial attacks,
    2018, with the cosine for the loss.
    Args:
      rng: key of the starting points, uniform in the allowed box.
      images: float32 [B, H, W, 3] in [-1, 1].
      embed: images -> [B, D], differentiable.
      epsilon: largest change of a pixel, as a share of the value range.
      step: change per iteration, likewise.
      iterations: >= 1.
    Returns: float32 [B, H, W, 3] in [-1, 1], within epsilon of the images.
    Raises: ValueError: epsilon or step not positive, no iteration.
    """
    if not (epsilon > 0 and step > 0 and iterations >= 1):
        raise ValueError(
            "attack_embeddings: epsilon and step must be positive and iterations at "
            f"least 1; got {epsilon}, {step} and {iterations}."
        )
    reach, pace = 2 * epsilon, 2 * step  # the range is 2 wide
    low, high = jnp.maximum(images - reach, -1.0), jnp.minimum(images + reach, 1.0)
    own = unit(embed(images))

    def cosine(changed: Array) -> Array:
        return (unit(embed(changed)) * own).sum()

    def descend(changed: Array, _: None) -> tuple[Array, None]:
        gradient = jax.grad(cosine)(changed)
        return jnp.clip(changed - pace * jnp.sign(gradient), low, high), None

    noise = jax.random.uniform(rng, images.shape, minval=-reach, maxval=reach)
    start = jnp.clip(images + noise, low, high)
    return jax.lax.scan(descend, start, length=iterations)[0]
