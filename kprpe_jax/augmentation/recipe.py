"""Augmentation inside the compiled step: one recipe, one random key for each image."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kprpe_jax.augmentation import blur, check, occlusion, photometric, spatial
from kprpe_jax.augmentation.blur import Blur
from kprpe_jax.augmentation.occlusion import Occlusion
from kprpe_jax.augmentation.photometric import Photometric
from kprpe_jax.augmentation.spatial import FACE_MIRROR, Spatial
from kprpe_jax.core.input_spec import to_unit_range


class Recipe(NamedTuple):
    """Probabilities and ranges, in the order in which they are applied."""

    spatial: Spatial = Spatial()
    occlusion: Occlusion = Occlusion()
    blur: Blur = Blur()
    photometric: Photometric = Photometric()


PRESETS = {
    "none": Recipe(),
    # Source: KP-RPE, Sec. 4.1 and Tab. 6; what these leave open is as the authors'
    # released training configuration has it. It samples RandAugment's equalize and gray
    # anew up to two times: weights 4 and 67. Its cut-out is one sample of 0.2, a crop
    # in 95 % of the cases.
    "kprpe": Recipe(
        spatial=Spatial(
            flip_prob=0.5, rotation_prob=0.2, scale_prob=1.0, translation_prob=1.0
        ),
        occlusion=Occlusion(crop_prob=0.19, hole_prob=0.01, holes=(12, 20)),
        blur=Blur(prob=0.2),
        photometric=Photometric(
            prob=1.0,
            ops=(
                "identity",
                "brightness",
                "saturation",
                "contrast",
                "sharpness",
                "equalize",
                "gray",
            ),
            weights=(67, 67, 67, 67, 67, 4, 4),
            spread=9,
        ),
    ),
    # Source: AdaFace (Kim et al., 2022), the authors' released training code.
    "adaface": Recipe(
        spatial=Spatial(flip_prob=0.5),
        occlusion=Occlusion(crop_prob=0.2),
        blur=Blur(prob=0.2, weights=(0, 0, 1)),
        photometric=Photometric(prob=0.2, kind="jitter"),
    ),
}


def make_recipe(preset: str, **changes: Mapping[str, Any]) -> Recipe:
    """Take a preset and change fields of its parts, as a config states them.

        make_recipe("kprpe", blur={"prob": 0.3}, spatial={"flip_prob": 0.0})

    Args:
      preset: of PRESETS.
      **changes: part of `Recipe` -> field -> value; lists are taken for tuples.
    Returns: the recipe.
    Raises: ValueError: no such preset, part, field or operation; a value out of range.
    """
    if preset not in PRESETS:
        raise ValueError(
            f"make_recipe: preset must be one of {', '.join(PRESETS)}; got {preset!r}; "
            "choose one of them"
        )
    recipe = PRESETS[preset]
    for part, fields in changes.items():
        check.known("make_recipe", "parts", [part], Recipe._fields)
        old = getattr(recipe, part)
        check.known("make_recipe", f"fields of {part}", fields, old._fields)
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        recipe = recipe._replace(**{part: old._replace(**values)})
    check.recipe("make_recipe", recipe)
    return recipe


@jax.named_scope("augmentation")
def augment(
    rng: jax.Array,
    images: jax.Array,
    keypoints: jax.Array,
    recipe: Recipe,
    *,
    mirror: Sequence[int] = FACE_MIRROR,
) -> tuple[jax.Array, jax.Array]:
    """Augment a batch, each image by its own random numbers.

    What becomes of an image depends on its own key alone, never on the rest of the
    batch. An image for which no operation is sampled comes back bit for bit.

    Args:
      rng: a random key, from which image i gets `fold_in(rng, i)`, or one key [B] for
        each image.
      images: [B, H, W, 3], uint8 in 0..255 or floating in [-1, 1].
      keypoints: [B, K, 2], (x, y) in 0..1; K is 0 where there are none.
      recipe: see `Recipe`; static.
      mirror: K indices; in a flipped image point k is the old point mirror[k]. The
        default is of the five points of a face.
    Returns: images float32 [B, H, W, 3] in [-1, 1] and keypoints float32 [B, K, 2] that
      may leave 0..1.
    Raises: ValueError: shapes or types that do not fit; a recipe out of range.
    """
    check.recipe("augment", recipe)
    check.inputs(rng, images, keypoints)
    if keypoints.shape[1] == 0:
        mirror = ()
    check.mirror(mirror, keypoints.shape[1])
    if rng.ndim == 0:
        rng = jax.vmap(jax.random.fold_in, (None, 0))(rng, jnp.arange(len(images)))
    is_bytes = images.dtype == jnp.uint8
    images = to_unit_range(images) if is_bytes else images.astype(jnp.float32)

    size = images.shape[1:3]
    sampled = jax.vmap(lambda rng: _sample(rng, recipe, size))(rng)

    def one(image, keypoints, sampled):
        return _apply(image, keypoints, sampled, recipe, mirror)

    # Rare operations cost nothing where images take turns, which suits a CPU; side by
    # side, which suits accelerators, every image pays for all of them.
    return jax.lax.platform_dependent(
        images,
        keypoints.astype(jnp.float32),
        sampled,
        cpu=lambda *batch: jax.lax.map(lambda args: one(*args), batch),
        default=jax.vmap(one),
    )


class _Samples(NamedTuple):
    """The samples of one image, part by part."""

    spatial: spatial.Motion
    occlusion: occlusion.OcclusionSample
    blur: blur.BlurSample
    photometric: photometric.PhotometricSample


def _sample(rng: jax.Array, recipe: Recipe, size: tuple[int, int]) -> _Samples:
    rngs = jax.random.split(rng, len(recipe))
    return _Samples(
        spatial.sample(rngs[0], recipe.spatial, size=size),
        occlusion.sample(rngs[1], recipe.occlusion, size=size),
        blur.sample(rngs[2], recipe.blur),
        photometric.sample(rngs[3], recipe.photometric),
    )


def _apply(
    image: jax.Array,
    keypoints: jax.Array,
    sampled: _Samples,
    recipe: Recipe,
    mirror: Sequence[int],
) -> tuple[jax.Array, jax.Array]:
    """Augment one image [H, W, 3]; what can never happen is not compiled."""
    keypoints = spatial.move_keypoints(
        keypoints, sampled.spatial, size=image.shape[:2], mirror=mirror
    )
    image = spatial.warp(image, sampled.spatial, recipe.spatial)
    if recipe.occlusion.crop_prob > 0 or recipe.occlusion.hole_prob > 0:
        image = occlusion.apply(image, sampled.occlusion, recipe.occlusion)
    if recipe.blur.prob > 0:
        image = blur.apply(image, sampled.blur)
    if recipe.photometric.prob > 0:
        image = photometric.apply(image, sampled.photometric, recipe.photometric)
    return image, keypoints
