"""A small sibling of every kind of recognizer, made by its registry entry.

Random weights, so that what passes through them is wiring, not recognition.
"""

from functools import cache

import jax
import numpy as np

from kprpe_jax.alignment.aligned_backbone import AlignedBackbone
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.registry import network
from kprpe_jax.tasks.networks import example_inputs
from tests.quick import quick_jit

_VIT = dict(patch_size=28, width=16, depth=2, num_heads=2, output_dim=8, scan=False)
_SWIN = dict(patch_size=7, width=8, depths=(1, 1), num_heads=(1, 2), output_dim=8)
SIBLINGS = {  # name of the published network -> fields of its small sibling
    "vit_small": _VIT,
    "vit_irpe_base": _VIT,
    "vit_kprpe_base_multihead": _VIT,
    "swin_base": _SWIN | dict(window=(4, 4)),
    "swin_kprpe_base": _SWIN | dict(window=(4, 4)),
    "iresnet_ir50": dict(stage_sizes=(1, 1, 1, 1), widths=(4, 4, 8, 8), output_dim=8),
    "iresnet_insightface_ir50": dict(
        stage_sizes=(1, 1, 1, 1), widths=(4, 4, 8, 8), output_dim=8
    ),
    "mobilefacenet": dict(output_dim=8),
    "mobilefacenet_insightface": dict(
        stages=((1, 8, 1, 2), (1, 8, 2, 1), (2, 16, 1, 2), (2, 16, 1, 2)),
        stem_width=8,
        stem_groups=4,
        last_width=16,
        output_dim=8,
    ),
    "deepface_emd_arcface": dict(stage_sizes=(1, 1, 1, 1), output_dim=8),
    "deepface_emd_cosface": dict(stage_sizes=(0, 0, 0, 0), output_dim=8),
    "dlib_resnet_v1": dict(
        widths=(4, 4, 8, 8, 8), stage_sizes=(1, 1, 1, 1, 1), output_dim=8
    ),
    "facenet": dict(repeats=(1, 1, 1), output_dim=8),
}


@cache
def sibling(name: str, seed: int = 0) -> Recognizer:
    """The small sibling of a published network; variables are NumPy arrays."""
    published = network(name, "recognizer")
    module = published.make(**SIBLINGS[name])
    spec = published.input_spec
    variables = _random(module, spec, np.random.default_rng(seed))
    return Recognizer(variables, module, spec, f"small {name}", published.license)


def _random(module, spec, rng):
    """Random variables of a network, NumPy arrays."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *example_inputs(spec, 1))

    def draw(path, leaf):
        text = jax.tree_util.keystr(path)
        if "var" in text:
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        scale = max(np.prod(leaf.shape[:-1]), 1) ** -0.5 if leaf.ndim > 1 else 0.3
        return rng.normal(0, scale, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@cache
def aligned_sibling() -> Recognizer:
    """A small KP-RPE ViT behind a learned spline, as joint alignment trains it."""
    inner = sibling("vit_kprpe_base_multihead")
    module = AlignedBackbone(
        inner.module, control=(2, 2), localization=dict(widths=(4, 4, 4, 4, 4))
    )
    variables = _random(module, inner.input_spec, np.random.default_rng(2))
    return Recognizer(variables, module, inner.input_spec, "small aligned ViT")


features = quick_jit(Recognizer.features)
