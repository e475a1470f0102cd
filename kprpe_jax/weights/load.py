"""Published weights as variables of our networks and back, by each network's rules."""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np

from kprpe_jax import registry
from kprpe_jax.weights.rules import (
    WeightLayout,
    check_state_dict,
    export_state_dict,
    import_state_dict,
    shorten,
)
from kprpe_jax.weights.signatures import looks_like
from kprpe_jax.weights.state_dict import load_state_dict, select_part

_LOG = logging.getLogger(__name__)
LAYOUTS = {  # class -> its layout, "file:function" of this folder
    "ArcFaceResNet": "iresnet:arcface_layout",
    "BlazeFaceFull": "blazeface:blazeface_layout",
    "BlazeFaceShort": "blazeface:blazeface_layout",
    "ClusterAggregate": "caface:caface_layout",
    "DifferentiableAligner": "retinaface:aligner_layout",
    "DlibResNet": "dlib_resnet:dlib_resnet_layout",
    "FaceMesh": "blazeface:face_mesh_layout",
    "GaitBase": "gait_networks:gaitbase_layout",
    "GaitSet": "gait_networks:gaitset_layout",
    "IResNet": "iresnet:iresnet_layout",
    "InceptionResNet": "patch_backbones:inception_layout",
    "InsightFaceMobileFaceNet": "mobilefacenet:insightface_layout",
    "MobileFaceNet": "mobilefacenet:mobilefacenet_layout",
    "OneImage": "face_vit:face_vit_layout",
    "ProxyFusion": "proxy_fusion:proxy_fusion_layout",
    "RetinaFace": "retinaface:retinaface_layout",
    "SameOrNot": "face_vit:face_vit_layout",
    "SphereFace": "patch_backbones:sphereface_layout",
    "Swin": "swin:swin_layout",
    "SwinGait": "swin_gait:swin_gait_layout",
    "TwoLinear": "face_vit:face_vit_layout",
    "ViT": "vit:vit_layout",
}


def import_weights(
    network: nn.Module | str, source: str | Path | Mapping[str, Any]
) -> dict[str, Any]:
    """Published weights as variables.

    Args:
      network: module of a class in LAYOUTS, or a name of `registry.NETWORKS`.
      source: as `load_state_dict` takes it.
    Returns: `params` and, where there are running statistics, `batch_stats`; float32
      NumPy arrays.
    Raises: ValueError: lists missing, surplus and misshapen names; weights that are
      not finite, or no floating-point numbers; the network's options are not those
      that published weights are made for; a class without rules.
    """
    arrays = load_state_dict(source)
    name, layout = _layout(network, arrays)
    told = dict(network=name, advise=partial(_advise, arrays))
    check_state_dict(layout.arrays, layout.rules, layout.shapes, **told)
    _check_numbers(name, {x.source: layout.arrays[x.source] for x in layout.rules})
    variables = import_state_dict(layout.arrays, layout.rules, layout.shapes, **told)
    for key, (got, want) in layout.copies.items():
        if got.shape != want.shape or np.abs(got - want).max() > 1e-4:
            raise ValueError(
                f"{key} of {name} must be what the other weights say; "
                f"got {got.shape} with other values for {want.shape}; these weights "
                "are of another network."
            )
    return variables


def check_weights(
    network: nn.Module | str, source: str | Path | Mapping[str, Any]
) -> None:
    """Raise what `import_weights` would raise about names and shapes; copy nothing."""
    arrays = load_state_dict(source)
    name, layout = _layout(network, arrays)
    told = dict(network=name, advise=partial(_advise, arrays))
    check_state_dict(layout.arrays, layout.rules, layout.shapes, **told)


def export_weights(
    network: nn.Module | str, variables: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Variables, or gradients, under their published names and shapes.

    What published files hold twice or can do without is left out: buffers, prefixes,
    parts that no output depends on.
    """
    return export_state_dict(variables, _layout(network, {})[1].rules)


def has_layout(module: nn.Module) -> bool:
    """Whether an official code has a network of this class."""
    return type(module).__name__ in LAYOUTS


def _check_numbers(network: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse weights that are not finite, or whole numbers."""
    kinds = {name: x.dtype for name, x in arrays.items() if x.dtype != np.float32}
    if kinds:
        raise ValueError(
            f"the weights of {network} must be floating-point numbers; "
            f"got {next(iter(kinds.values()))} in {shorten(list(kinds))}; give a file "
            "that is not quantized."
        )
    broken = [name for name, x in arrays.items() if not np.isfinite(x).all()]
    if broken:
        raise ValueError(
            f"the weights of {network} must be finite; NaN or infinity "
            f"stands in {shorten(broken)}; give another file."
        )


def _advise(arrays: dict[str, np.ndarray]) -> str:
    """What to do about weights that do not fit: name the network they look like."""
    found = looks_like(arrays)
    return f"they look like {' or '.join(found)}: name that network" if found else ""


def _layout(
    network: nn.Module | str, arrays: dict[str, np.ndarray]
) -> tuple[str, WeightLayout]:
    """The network in words, and the layout of its published files."""
    module = network
    if isinstance(network, str):
        module = registry.network(network).make()
    kind = type(module).__name__
    if not has_layout(module):
        raise ValueError(
            f"no weights are published for {kind}; use one of {', '.join(LAYOUTS)}."
        )
    make_layout = registry.resolve(f"kprpe_jax.weights.{LAYOUTS[kind]}")
    arrays, aside = select_part(
        arrays, lambda: (rule.source for rule in make_layout(module, {}).rules)
    )
    if aside:
        _LOG.warning(
            "%d arrays of the file stand beside the %s and are left aside: %s",
            len(aside), kind, shorten(aside),
        )  # fmt: skip
    layout = make_layout(module, arrays)
    variant = f" ({layout.variant})" if layout.variant else ""
    return network if isinstance(network, str) else f"this {kind}{variant}", layout
