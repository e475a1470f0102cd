"""Where two faces are alike: heat maps of patches, from features or from attention."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from kprpe_jax.core.unit import unit
from kprpe_jax.matching.patch_encoder import Tokens
from kprpe_jax.matching.patch_weights import correlation_weights, normalize
from kprpe_jax.matching.two_image import OneImage, PairNetwork


def cross_correlation(first: Array, second: Array) -> tuple[Array, Array]:
    """How much each patch points the way the other image does on average.

    Source: Face-ViT, Sec. 5.3.3; as in the official code the cosine with the mean of
    the other's patches, its positive part, and all of an image sum to 1.
    Args:
      first, second: [..., N, C] and [..., M, C]: a CNN's patches for model C, the
        encoder's for V, H1 and H2L (`pair_tokens`).
    Returns: float32 [..., N] and [..., M], all zero where nothing correlates.
    """
    means = (x.astype(jnp.float32).mean(-2) for x in (second, first))
    pairs = zip((first, second), means, strict=True)
    heat = (correlation_weights(unit(x), mean) for x, mean in pairs)
    return next(heat), next(heat)


def pair_tokens(
    model: PairNetwork,
    variables: dict[str, Any],
    first: Array,
    second: Array,
) -> tuple[Tokens, ...]:
    """What the encoder makes of a pair: of a one-image network for each image.

    Args:
      model, variables: the network.
      first, second: as it reads images, B of each.
    Returns: one or two `Tokens`; their patches, in order, are those of both images.
    """
    encoder = {"params": variables["params"]["encoder"]}
    sides = [(first,), (second,)] if isinstance(model, OneImage) else [(first, second)]
    return tuple(model.encoder.apply(encoder, *side, train=False) for side in sides)


def rollout(attention: Sequence[Array], *, residual: float = 0.5) -> Array:
    """How much of each input token there is in each output token.

    Source: Abnar and Zuidema, Quantifying attention flow in transformers, 2020: heads
    are averaged, the residual path is an attention to oneself, layers multiply.
    Args:
      attention: float32 [B, H, T, T] of each layer, from `Tokens`.
      residual: share of the path around the attention; 0 where there is none, as with
        attention `norm`.
    Returns: float32 [B, T, T], rows sum to 1.
    """
    total = jnp.eye(attention[0].shape[-1])
    for layer in attention:
        mean = layer.mean(1)
        mixed = (1 - residual) * mean + residual * jnp.eye(mean.shape[-1])
        total = mixed @ total
    return total


def rollout_heat(tokens: Tokens, *, residual: float = 0.5) -> tuple[Array, ...]:
    """What the class token took from each patch, by `rollout`.

    Args:
      tokens: of one or of two images.
      residual: of `rollout`.
    Returns: float32 [B, N] of each image; each sums to 1.
    """
    row = rollout(tokens.attention, residual=residual)[:, 0]
    parts = jnp.split(row, len(tokens.patches), axis=-1)  # a special token, then N
    return tuple(normalize(part[:, 1:]) for part in parts)
