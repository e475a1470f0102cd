"""Learned fusions of a recognizer's features, and sets fused by hand."""

import jax
import numpy as np

from kprpe_jax.fusion.cluster_aggregate import ImageSets
from kprpe_jax.fusion.files import load_model, save_model
from tests.fusion.tiny import draw_variables, fuser, tiny_model


def save_fusion(path, recognizer, seed=0, **fields):
    """Write a CAFace model of a recognizer's features."""
    shapes = recognizer.shapes()._replace(patches=None, keypoints=None)
    model = tiny_model(embed_dim=shapes.embeddings.shape[-1], **fields)
    zeros = jax.tree.map(lambda x: np.zeros((1, *x.shape), np.float32), shapes)
    sets = ImageSets(zeros, np.ones((1, 1), bool))
    variables = draw_variables(model, np.random.default_rng(seed), sets)
    return save_model(path, model, variables, backbone=recognizer.fingerprint)


def fuse_by_hand(name, features, scores=None):
    """One embedding [D] of images [N, ...]: `average`, `norm` or a file, at once."""
    x = features.embeddings
    if name == "average":
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).mean(0)
    if name == "norm":
        return x.mean(0)
    file = load_model(name)
    one = jax.tree.map(lambda x: x[None], features._replace(patches=None))
    sets = ImageSets(one, np.ones((1, len(x)), bool), scores)
    return np.asarray(fuser(file.model, file.variables)(sets).embeddings[0])


def assert_same_direction(first, second, atol=1e-4):
    """Compare embeddings as cosines do."""
    first, second = (x / np.linalg.norm(x, axis=-1, keepdims=True)
                     for x in (first, second))  # fmt: skip
    np.testing.assert_allclose(first, second, atol=atol)
