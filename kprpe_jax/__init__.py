"""Recognizing people in bad pictures: keypoint-aware, purely functional JAX.

The names below are imported from their modules when they are first used.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_NAMES = {  # name -> module of this package
    "AlignedFace": "alignment.photos",
    "ClusterAggregate": "fusion.cluster_aggregate",
    "Detector": "detection.detector",
    "DifferentiableAligner": "detection.differentiable_aligner",
    "Features": "core.features",
    "Gallery": "gallery.gallery",
    "IResNet": "backbones.iresnet",
    "ImageSets": "fusion.cluster_aggregate",
    "InputSpec": "core.input_spec",
    "PositionBias": "position.encoding",
    "Ranking": "matching.nearest",
    "Recognizer": "backbones.recognizer",
    "RetinaFace": "detection.retinaface",
    "Solver": "matching.sinkhorn",
    "Swin": "backbones.swin",
    "SwinGait": "backbones.swin_gait",
    "ViT": "backbones.vit",
    "align": "alignment.photos",
    "control_grid": "geometry.thin_plate_spline",
    "earth_movers": "matching.earth_movers",
    "embed": "evaluation.embedding",
    "export_weights": "weights",
    "grid_basis": "geometry.thin_plate_spline",
    "grid_sample": "geometry.sampling",
    "import_weights": "weights",
    "keypoint_bias": "position.keypoint_bias",
    "load_detector": "recognizers",
    "load_recognizer": "recognizers",
    "make_margin": "losses.margin",
    "make_spline": "geometry.thin_plate_spline",
    "margin_softmax": "losses.class_centers",
    "render_faces": "data.synthetic.faces",
    "tar_at_far": "evaluation.roc",
    "transport": "matching.sinkhorn",
    "two_stage": "matching.two_stage",
    "warp_grid": "geometry.thin_plate_spline",
}
__all__ = ["__version__", *_NAMES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    """Import a name of the front door from its module."""
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *_NAMES])
