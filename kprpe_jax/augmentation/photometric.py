"""Random sequences of color operations: RandAugment and color jitter, one image."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kprpe_jax.augmentation import color
from kprpe_jax.augmentation.rare import apply_where

_LARGEST_CHANGE = 0.9  # of a factor, at full magnitude

# name -> (image, strength in 0..1, sign -1 or 1) -> image. Source: RandAugment (Cubuk
# et al., 2020) in the ranges that torchvision made common.
OPERATIONS: dict[str, Callable[[jax.Array, jax.Array, jax.Array], jax.Array]] = {
    "identity": lambda image, strength, sign: image,
    "brightness": lambda image, strength, sign: color.brightness(
        image, _factor(strength, sign)
    ),
    "contrast": lambda image, strength, sign: color.contrast(
        image, _factor(strength, sign)
    ),
    "saturation": lambda image, strength, sign: color.saturation(
        image, _factor(strength, sign)
    ),
    "sharpness": lambda image, strength, sign: color.sharpness(
        image, _factor(strength, sign)
    ),
    "equalize": lambda image, strength, sign: color.equalize(image),
    "gray": lambda image, strength, sign: color.gray(image),
    "autocontrast": lambda image, strength, sign: color.autocontrast(image),
    "posterize": lambda image, strength, sign: color.posterize(
        image, 8 - jnp.round(4 * strength)
    ),
    "solarize": lambda image, strength, sign: color.solarize(
        image, 255 * (1 - strength)
    ),
    "invert": lambda image, strength, sign: color.invert(image),
}

# Of OPERATIONS, what costs more than all others together: not for images that did not
# sample it.
APART = {"equalize": color.equalize}


class Photometric(NamedTuple):
    """Which color operations, how often and how strong.

    prob: of any operation at all.
    kind: "randaugment" samples `num_ops` operations with replacement; "jitter" applies
      each of `ops` once, in random order.
    ops: names of OPERATIONS.
    weights: how often "randaugment" samples each of `ops`, in any unit.
    num_ops: operations of "randaugment" in a row.
    magnitude: of "randaugment", of `bins` - 1; the sign is a coin toss.
    spread: the magnitude is a whole number sampled from magnitude - spread ..
      magnitude + spread - 1; 0 takes `magnitude` itself.
    bins: as RandAugment counts magnitudes.
    jitter: "jitter" samples factors from 1 - jitter .. 1 + jitter.
    """

    prob: float = 0.0
    kind: Literal["randaugment", "jitter"] = "randaugment"
    ops: tuple[str, ...] = ("brightness", "contrast", "saturation")
    weights: tuple[float, ...] = (1, 1, 1)
    num_ops: int = 2
    magnitude: int = 14
    spread: int = 0
    bins: int = 31
    jitter: float = 0.5


class PhotometricSample(NamedTuple):
    """The sampled operations of one image: n operations, from first to last.

    ops: int32 [n], 0 is none, i the (i - 1)th of the settings' `ops`.
    strength: float32 [n], 0..1.
    sign: float32 [n], -1 or 1.
    """

    ops: jax.Array
    strength: jax.Array
    sign: jax.Array


def sample(rng: jax.Array, settings: Photometric) -> PhotometricSample:
    """Sample one image's operations.

    Args:
      rng: random key.
      settings: see `Photometric`.
    Returns: see `PhotometricSample`.
    """
    jitter = settings.kind == "jitter"
    count = len(settings.ops) if jitter else settings.num_ops
    numbers = jax.random.uniform(rng, (1 + 3 * count,))  # one generator for all
    choice, strength, sign = numbers[1:].reshape(3, count)
    if jitter:
        ops = jnp.argsort(choice)
        strength = strength * (settings.jitter / _LARGEST_CHANGE)
    else:
        shares = np.cumsum(settings.weights) / np.sum(settings.weights)
        ops = (choice[:, None] >= shares[:-1].astype(np.float32)).sum(axis=1)
        low = settings.magnitude - settings.spread
        bins = max(2 * settings.spread, 1)
        bin_index = low + jnp.floor(strength * bins)
        strength = jnp.clip(bin_index / (settings.bins - 1), 0, 1)
    applied = numbers[0] < settings.prob
    return PhotometricSample(
        ops=jnp.where(applied, ops + 1, 0),
        strength=strength,
        sign=jnp.where(sign < 0.5, -1.0, 1.0),
    )


def apply(
    image: jax.Array, sampled: PhotometricSample, settings: Photometric
) -> jax.Array:
    """Apply sampled operations, from first to last.

    Args:
      image: float32 [H, W, 3] in [-1, 1].
      sampled: from `sample`.
      settings: the ones that `sample` had.
    Returns: float32 [H, W, 3].
    """
    names = ("identity", *settings.ops)
    branches = [OPERATIONS["identity" if n in APART else n] for n in names]

    def step(image, one):
        op, strength, sign = one
        image = jax.lax.switch(op, branches, image, strength, sign)
        for index, name in enumerate(names):
            if name in APART:
                image = apply_where(op == index, APART[name], image)
        return image, None

    return jax.lax.scan(step, image, sampled)[0]


def _factor(strength: jax.Array, sign: jax.Array) -> jax.Array:
    return 1 + sign * _LARGEST_CHANGE * strength
