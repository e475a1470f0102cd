"""Margins on the cosine between an embedding and its class center.

A margin makes the target class harder to reach in training. `target_cosine` maps the
cosine of the true class; the others stay, but for `other_cosine`. All in float32,
finite at cosine +1 and -1.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from kprpe_jax.core.checks import check_option
from kprpe_jax.registry import MARGINS, resolve

GRADIENTS = ("exact", "identity")
ANGLES = ("clipped", "free", "linear")


class MarginRule(NamedTuple):
    """How a kind of margin changes the cosine of the true class; see MARGINS.

    Attributes:
      target_cosine: (cosine, quality, margin, angle) -> the cosine with its margin, of
        the cosine's shape; `margin` and `angle` are those of `make_margin`.
      is_angle: whether the margin is added to the angle, so that it is at most pi.
      uses_quality: as `Margin`.
      other_cosine: (cosines of all classes [B, C], those of the true ones [B, 1],
        margin, running mean of the latter) -> cosines of the other classes [B, C];
        None = they stay.
    """

    target_cosine: Callable[[Array, ArrayLike, float, str], Array]
    is_angle: bool = False
    uses_quality: bool = False
    other_cosine: Callable[[Array, ArrayLike, float, ArrayLike], Array] | None = None


class Margin(NamedTuple):
    """A margin function and the scale of the logits.

    Attributes:
      target_cosine: float32 [...] cosine of the true class -> the same with its margin.
        Takes the quality of the image, broadcast to the cosine, as an optional second
        argument.
      scale: s, multiplies all cosines before the softmax.
      uses_quality: whether the quality matters (AdaFace); without it all images are
        taken for average ones.
      drop_above: cosines of other classes above this one are set to 0 (they are taken
        for mislabeled); None = all stay.
      other_cosine: (cosines [B, C], those of the true classes [B, 1], running mean of
        the latter) -> cosines of the other classes [B, C]; None = they stay
        (CurricularFace has it).
    """

    target_cosine: Callable[..., Array]
    scale: float
    uses_quality: bool = False
    drop_above: float | None = None
    other_cosine: Callable[[Array, ArrayLike, ArrayLike], Array] | None = None


def make_margin(
    kind: str,
    *,
    margin: float,
    scale: float = 64.0,
    gradient: str = "exact",
    angle: str = "clipped",
    drop_above: float | None = None,
) -> Margin:
    """Choose a margin.

    Source: `cosface` cos(theta) - m (CosFace); `arcface` cos(theta + m) (ArcFace);
    `adaface` cos(theta - m q) - (m + m q) with the image's quality q in [-1, 1]
    (AdaFace); `curricularface` as `arcface`, and the cosines of hard negatives times
    t + cos (`losses.curricularface`); `cosine` has none. The losses of KP-RPE, Supp.
    2.1, and CurricularFace.

    Args:
      kind: one of `registry.MARGINS`.
      margin: m >= 0; in radians, at most pi, where it is added to the angle
        (`arcface`, `adaface`, `curricularface`), ignored by `cosine`.
      scale: s > 0.
      gradient: `exact`, or `identity`: the backward pass ignores the margin, as in the
        official code.
      angle: `clipped`: the angle with its margin stays in [0, pi], so that a larger
        angle never gets a larger logit; `free`, as in the official code of KP-RPE;
        `linear`, as in that of ArcFace: beyond pi the cosine less m sin(m). Where an
        embedding starts alike for all images, `clipped` can end with all centers
        opposite to it, where no gradient is left; `linear` has no such place.
      drop_above: of `Margin`; the official option "interclass filtering".
    Raises: ValueError: unknown kind, gradient or angle, a margin out of range, scale
      not positive, one of them not finite.
    """
    check_option("make_margin", "kind", kind, MARGINS)
    rule: MarginRule = resolve(MARGINS[kind])
    if not 0 <= margin < math.inf or (rule.is_angle and margin > math.pi):
        raise ValueError(
            "make_margin: margin must not be negative, and an angle at most pi; got "
            f"{margin} for {kind}."
        )

    def exact(cosine: Array, quality: ArrayLike) -> Array:
        return rule.target_cosine(cosine, quality, margin, angle)

    options = scale, gradient, angle, drop_above
    result = _with_options("make_margin", exact, *options)
    result = result._replace(uses_quality=rule.uses_quality)
    if rule.other_cosine is None:
        return result

    def other_cosine(cosine: Array, target: ArrayLike, target_mean: ArrayLike) -> Array:
        changed = rule.other_cosine(cosine, target, margin, target_mean)
        return _with_gradient(changed, cosine, gradient)

    return result._replace(other_cosine=other_cosine)


def combined_margin(
    multiplier: float,
    added: float,
    subtracted: float,
    *,
    scale: float = 64.0,
    gradient: str = "exact",
    angle: str = "clipped",
    drop_above: float | None = None,
) -> Margin:
    """The margin cos(m1 theta + m2) - m3.

    Source: ArcFace, Eq. 4 (SphereFace, ArcFace and CosFace in one). The official class
    of this name ignores m1 and m2 as soon as m3 > 0.

    Args:
      multiplier: m1 >= 1.
      added: m2 in [0, pi], radians.
      subtracted: m3 >= 0.
      scale, gradient, drop_above: as `make_margin`.
      angle: `clipped` or `free`, as there.
    Raises: ValueError: a margin out of range; as `make_margin`.
    """
    if angle == "linear":
        raise ValueError(
            "combined_margin: angle must be clipped or free; got 'linear'; take "
            "make_margin."
        )
    in_range = 1 <= multiplier < math.inf and 0 <= added <= math.pi
    if not (in_range and 0 <= subtracted < math.inf):
        raise ValueError(
            "combined_margin: multiplier must be at least 1, added lie in [0, pi] and "
            f"subtracted not be negative; got {multiplier}, {added} and {subtracted}."
        )

    def exact(cosine: Array, quality: ArrayLike) -> Array:
        theta = multiplier * jnp.arctan2(_sine(cosine), cosine) + added
        if angle == "clipped":
            theta = jnp.minimum(theta, jnp.pi)
        return jnp.cos(theta) - subtracted

    options = scale, gradient, angle, drop_above
    return _with_options("combined_margin", exact, *options)


def _with_options(
    name: str,
    exact: Callable[[Array, ArrayLike], Array],
    scale: float,
    gradient: str,
    angle: str,
    drop_above: float | None,
) -> Margin:
    check_option(name, "gradient", gradient, GRADIENTS)
    check_option(name, "angle", angle, ANGLES)
    if not 0 < scale < math.inf:
        raise ValueError(f"{name}: scale must be positive and finite; got {scale}.")

    def target_cosine(cosine: Array, quality: ArrayLike = 0.0) -> Array:
        return _with_gradient(exact(cosine, quality), cosine, gradient)

    return Margin(target_cosine, scale, drop_above=drop_above)


def _with_gradient(changed: Array, cosine: Array, gradient: str) -> Array:
    """The changed cosine with its own gradient, or with that of the cosine."""
    if gradient == "exact":
        return changed
    return cosine + jax.lax.stop_gradient(changed - cosine)


def margin_logits(
    cosine: Array,
    is_target: Array,
    margin: Margin,
    quality: ArrayLike = 0.0,
    *,
    target: ArrayLike | None = None,
    target_mean: ArrayLike = 0.0,
) -> Array:
    """Logits of a softmax over classes.

    Args:
      cosine: float32 [B, C] in [-1, 1].
      is_target: bool [B, C], True = the true class; a row may have none.
      margin: from `make_margin`.
      quality: float32 [B, 1] in [-1, 1], for AdaFace.
      target: float32 [B, 1], cosines of the true classes, for CurricularFace; None =
        they are among these.
      target_mean: t of CurricularFace, float32 scalar.
    Returns: float32 [B, C].
    """
    others = cosine
    if margin.drop_above is not None:
        others = jnp.where(cosine > margin.drop_above, 0.0, cosine)
    if margin.other_cosine is not None:
        if target is None:
            target = jnp.where(is_target, cosine, 0.0).sum(-1, keepdims=True)
        others = margin.other_cosine(others, target, target_mean)
    shifted = margin.target_cosine(cosine, quality)
    return margin.scale * jnp.where(is_target, shifted, others)


def add_angle(cosine: Array, added: ArrayLike, *, angle: str = "clipped") -> Array:
    """cos(arccos(cosine) + added), with finite gradients.

    Args:
      cosine: float32 [...] in [-1, 1].
      added: radians in [-pi, pi], broadcast to the cosine.
      angle: `clipped`: the sum is stopped at 0 and pi; `free`; or `linear`: stopped
        at 0, and beyond pi the cosine less added * sin(added).
    """
    cos, sin = jnp.cos(jnp.float32(added)), jnp.sin(jnp.float32(added))
    shifted = cosine * cos - _sine(cosine) * sin
    if angle == "free":
        return shifted
    beyond_pi = (added > 0) & (cosine < -cos)
    below_zero = (added < 0) & (cosine > cos)
    at_pi = cosine - added * sin if angle == "linear" else -1.0
    return jnp.where(beyond_pi, at_pi, jnp.where(below_zero, 1.0, shifted))


def _sine(cosine: Array) -> Array:
    """sqrt(1 - cosine^2); the slope is that where the sine is at least 1e-4.

    The true slope at cosine = 1 is infinite; this one stays below 1e4.
    """
    squared = (1.0 - cosine) * (1.0 + cosine)
    kept = jnp.sqrt(jnp.maximum(squared, 1e-8))
    exact = jnp.sqrt(jnp.maximum(squared, 0.0))
    return kept + jax.lax.stop_gradient(exact - kept)


def clip_cosine(cosine: Array) -> Array:
    """Clip to [-1, 1] against round-off; the gradient passes unchanged."""
    return cosine + jax.lax.stop_gradient(jnp.clip(cosine, -1.0, 1.0) - cosine)


COSINE = MarginRule(lambda cosine, quality, margin, angle: cosine)
COSFACE = MarginRule(lambda cosine, quality, margin, angle: cosine - margin)
ARCFACE = MarginRule(
    lambda cosine, quality, margin, angle: add_angle(cosine, margin, angle=angle),
    is_angle=True,
)
ADAFACE = MarginRule(
    lambda cosine, quality, margin, angle: (
        add_angle(cosine, -margin * quality, angle=angle) - margin * (1 + quality)
    ),
    is_angle=True,
    uses_quality=True,
)
