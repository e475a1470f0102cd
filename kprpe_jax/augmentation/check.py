"""What an augmentation must be given; each fault is one sentence."""

from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp

from kprpe_jax.augmentation.photometric import OPERATIONS

# (part, field) of the ranges (low, high), with the limits that both must keep.
_RANGES = (
    ("spatial", "scale", 1e-3, 1e3),
    ("occlusion", "crop_area", 1e-3, 1.0),
    ("occlusion", "holes", 1, 1000),
    ("blur", "side", 0.0, 1.0),
)
# (part, field, smallest, largest) of single numbers.
_NUMBERS = (
    ("spatial", "rotation_degrees", 0, 360),
    ("spatial", "shear", 0, 100),
    ("spatial", "translation", 0, 100),
    ("occlusion", "hole_side", 0, 1),
    ("blur", "box_width", 1, 1000),
    ("blur", "sigma", 0, 1000),
    ("photometric", "num_ops", 0, 100),
    ("photometric", "bins", 2, 1000),
    ("photometric", "spread", 0, 1000),
    ("photometric", "jitter", 0, 1),
)


def known(function: str, what: str, names: Iterable[str], choices: Iterable[str]):
    """Raise ValueError unless all names are among the choices."""
    choices = list(choices)
    strange = [name for name in names if name not in choices]
    if strange:
        raise ValueError(
            f"{function}: {what} must be of {', '.join(choices)}; got "
            f"{', '.join(map(repr, strange))}; choose among them"
        )


def recipe(function: str, recipe: tuple) -> None:
    """Raise ValueError unless every field of a `Recipe` is in range."""
    numbers = [
        (part, field, 0, 1)
        for part, fields in zip(recipe._fields, recipe, strict=True)
        for field in fields._fields
        if field.endswith("prob")
    ]
    for part, field, low, high in (*numbers, *_NUMBERS):
        value = getattr(getattr(recipe, part), field)
        if not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError(
                f"{function}: {part}.{field} must lie in {low}..{high}; got {value!r}; "
                "change it"
            )
    for part, field, low, high in _RANGES:
        value = getattr(getattr(recipe, part), field)
        pair = isinstance(value, tuple) and len(value) == 2
        if not (pair and low <= value[0] <= value[1] <= high):
            raise ValueError(
                f"{function}: {part}.{field} must be (low, high) with {low} <= low <= "
                f"high <= {high}; got {value}; change it"
            )
    colors = recipe.photometric
    known(function, "photometric.kind", [colors.kind], ("randaugment", "jitter"))
    known(function, "photometric.ops", colors.ops, OPERATIONS)
    _weights(function, "blur.weights", recipe.blur.weights, 3)
    if colors.kind == "randaugment":
        _weights(function, "photometric.weights", colors.weights, len(colors.ops))
    if not 0 <= colors.magnitude < colors.bins:
        raise ValueError(
            f"{function}: photometric.magnitude must lie in 0..{colors.bins - 1}; got "
            f"{colors.magnitude}; change it or photometric.bins"
        )


def inputs(rng: jax.Array, images: jax.Array, keypoints: jax.Array) -> None:
    """Raise ValueError unless the arrays are a batch to augment."""
    if images.ndim != 4 or images.shape[-1] != 3 or min(images.shape[1:3]) < 3:
        raise ValueError(
            "augment: images must be [B, H, W, 3], at least 3 x 3 pixels; got "
            f"{list(images.shape)}; repeat the channel of gray images"
        )
    floating = jnp.issubdtype(images.dtype, jnp.floating)
    if images.dtype != jnp.uint8 and not floating:
        raise ValueError(
            "augment: images must be uint8 in 0..255 or floating in [-1, 1]; got "
            f"{images.dtype}; convert them"
        )
    batch = images.shape[0]
    if keypoints.ndim != 3 or keypoints.shape[::2] != (batch, 2):
        raise ValueError(
            f"augment: keypoints must be [B, K, 2] with B = {batch}; got "
            f"{list(keypoints.shape)}; give [B, 0, 2] where there are none"
        )
    typed = jnp.issubdtype(rng.dtype, jax.dtypes.prng_key)
    if not typed or rng.shape not in ((), (batch,)):
        raise ValueError(
            f"augment: rng must be one random key or {batch} of them, one for each "
            f"image; got {rng.dtype} {list(rng.shape)}; make it with jax.random.key"
        )


def mirror(order: Sequence[int], num_keypoints: int) -> None:
    """Raise ValueError unless `order` swaps the keypoints in pairs."""
    places = range(num_keypoints)
    pairs = sorted(order) == list(places) and all(order[order[i]] == i for i in places)
    if not pairs:
        raise ValueError(
            f"augment: mirror must swap {num_keypoints} points in pairs; got "
            f"{tuple(order)}; give the index of each point's mirror image"
        )


def _weights(function: str, name: str, weights: Sequence[float], number: int) -> None:
    if len(weights) != number or min(weights) < 0 or sum(weights) <= 0:
        raise ValueError(
            f"{function}: {name} must be {number} numbers >= 0, not all 0; got "
            f"{weights}; change them"
        )
