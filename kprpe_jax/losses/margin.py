"""Margins on the cosine between an embedding and its class centre.

A margin makes the target class harder to reach in training. `target_cosine` maps the
cosine of the true class; the others stay. All in float32, finite at cosine +1 and -1.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

MARGINS = ("cosine", "cosface", "arcface")
GRADIENTS = ("exact", "identity")


class Margin(NamedTuple):
    """A margin function and the scale of the logits.

    Attributes:
      target_cosine: float32 [...] cosine of the true class -> the same with its margin.
      scale: s, multiplies all cosines before the softmax.
    """

    target_cosine: Callable[[Array], Array]
    scale: float


def make_margin(
    kind: str, *, margin: float, scale: float = 64.0, gradient: str = "exact"
) -> Margin:
    """Choose a margin.

    Source: `cosface` cos(theta) - m (CosFace); `arcface` cos(theta + m) (ArcFace), with
    theta + m stopped at pi so that a larger angle never gets a larger logit; `cosine`
    has none. The three losses of KP-RPE, Supp. 2.1, without AdaFace.

    Args:
      kind: one of MARGINS.
      margin: m >= 0; in radians for `arcface`, ignored by `cosine`.
      scale: s > 0.
      gradient: `exact`, or `identity`: the backward pass ignores the margin, as in the
        official code.
    Raises: ValueError: unknown kind or gradient, negative margin, scale not positive.
    """
    if kind not in MARGINS:
        raise ValueError(f"make_margin: unknown kind {kind!r}; use one of {MARGINS}.")
    if gradient not in GRADIENTS:
        raise ValueError(
            f"make_margin: unknown gradient {gradient!r}; use one of {GRADIENTS}."
        )
    if margin < 0 or scale <= 0:
        raise ValueError(
            "make_margin: margin must not be negative and scale must be positive; got "
            f"{margin} and {scale}."
        )
    functions = {
        "cosine": lambda cosine: cosine,
        "cosface": lambda cosine: cosine - margin,
        "arcface": lambda cosine: add_angle(cosine, margin),
    }
    exact = functions[kind]

    def identity(cosine: Array) -> Array:
        return cosine + jax.lax.stop_gradient(exact(cosine) - cosine)

    return Margin(exact if gradient == "exact" else identity, scale)


def add_angle(cosine: Array, angle: float) -> Array:
    """cos(min(arccos(cosine) + angle, pi)), with finite gradients.

    The sine is kept above 1e-4, so the gradient at cosine = 1, where the true one is
    infinite, stays below 1e4 sin(angle).
    """
    sine = jnp.sqrt(jnp.maximum(1.0 - jnp.square(cosine), 1e-8))
    shifted = cosine * math.cos(angle) - sine * math.sin(angle)
    return jnp.where(cosine > -math.cos(angle), shifted, -1.0)


def unit(x: Array, minimum_norm: float = 1e-8) -> Array:
    """Divide by the L2 norm of the last axis, kept above `minimum_norm`.

    Returns: float32, same shape; zero vectors stay zero, with finite gradients.
    """
    x = x.astype(jnp.float32)
    squared = jnp.square(x).sum(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squared, minimum_norm**2))


def clip_cosine(cosine: Array) -> Array:
    """Clip to [-1, 1] against round-off; the gradient passes unchanged."""
    return cosine + jax.lax.stop_gradient(jnp.clip(cosine, -1.0, 1.0) - cosine)
