"""A small model with weights away from their start, and sets of images for it."""

import jax
import numpy as np

from kprpe_jax.core.features import Features
from kprpe_jax.fusion.cluster_aggregate import VARIANTS, ClusterAggregate, ImageSets
from tests.quick import quick_jit

B, D, CHANNELS = 2, 6, 5


def tiny_model(variant="paper", **fields):
    sizes = dict(embed_dim=D, num_clusters=3, style_dim=4, norm_dim=4)
    sizes |= dict(num_heads=2, depth=1, mixer_depth=1)
    return ClusterAggregate(**{**sizes, **VARIANTS[variant], **fields})


def draw_sets(rng, images, mask=None):
    embeddings = rng.normal(size=(B, images, D)) * rng.uniform(1, 9, (B, images, 1))
    style = rng.normal(size=(B, images, CHANNELS, 2)).astype(np.float32)
    return ImageSets(
        Features(embeddings.astype(np.float32), style=style),
        np.ones((B, images), bool) if mask is None else mask,
    )


def draw_variables(model, rng, sets=None):
    """Weights large enough that images differ in where they go; of `sets`' sizes."""
    sets = draw_sets(rng, 2) if sets is None else sets
    shapes = jax.eval_shape(model.init, jax.random.key(0), sets)
    draw = lambda s: rng.normal(0, 0.7, s.shape).astype(np.float32)  # noqa: E731
    variables = jax.tree.map(draw, shapes)
    stats = variables["batch_stats"]
    stats["style_maker"]["norm"]["var"] = np.ones(model.style_dim, np.float32)
    stats["norm_embedding"]["norm"] = {"mean": np.float32([12]), "var": np.float32([9])}
    return variables


def fuser(model, variables):
    """Compiled: sets to what the model says at once."""
    return quick_jit(lambda sets: model.apply(variables, sets))


def updater(model, variables):
    """Compiled: state and sets to the next state."""
    return quick_jit(
        lambda state, sets: model.apply(variables, state, sets, method="update")
    )


def select(sets, images):
    return jax.tree.map(lambda x: x[:, images], sets)


def pad_images(sets, rubbish, width):
    """The same images followed by others that hold rubbish."""
    extra = width - sets.mask.shape[1]

    def pad(x, value=rubbish):
        widths = [(0, 0), (0, extra)] + [(0, 0)] * (x.ndim - 2)
        return np.pad(x, widths, constant_values=value)

    return ImageSets(jax.tree.map(pad, sets.features), pad(sets.mask, 0))


def with_embeddings(sets, embeddings):
    """The same images with other embeddings."""
    return sets._replace(features=sets.features._replace(embeddings=embeddings))
