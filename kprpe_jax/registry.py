"""Names of configs and commands, and the objects that they stand for.

Data only: objects are named by their path as text and imported when they are used.
"""

import difflib
from collections.abc import Iterable

from kprpe_jax.core.resolve import resolve  # noqa: F401, for users of the tables
from kprpe_jax.published_networks import FUSIONS_OF, NETWORKS, PublishedNetwork

BACKBONES = {  # config.backbone -> class whose fields `config.model` has
    "vit": "kprpe_jax.backbones.vit:ViT",
    "swin": "kprpe_jax.backbones.swin:Swin",
    "iresnet": "kprpe_jax.backbones.iresnet:IResNet",
    "mobilefacenet": "kprpe_jax.backbones.mobilefacenet:MobileFaceNet",
    "mobilefacenet_insightface": (
        "kprpe_jax.backbones.mobilefacenet:InsightFaceMobileFaceNet"
    ),
    "arcface_resnet": "kprpe_jax.backbones.arcface_resnet:ArcFaceResNet",
    "sphereface": "kprpe_jax.backbones.sphereface:SphereFace",
    "dlib_resnet": "kprpe_jax.backbones.dlib_resnet:DlibResNet",
    "inception_resnet": "kprpe_jax.backbones.inception_resnet:InceptionResNet",
}

MARGINS = {  # config.loss.margin_kind -> `losses.margin.MarginRule`
    "cosine": "kprpe_jax.losses.margin:COSINE",
    "cosface": "kprpe_jax.losses.margin:COSFACE",
    "arcface": "kprpe_jax.losses.margin:ARCFACE",
    "adaface": "kprpe_jax.losses.margin:ADAFACE",
    "curricularface": "kprpe_jax.losses.curricularface:CURRICULARFACE",
}

GAIT_NETWORKS = {  # config.backbone of the task gait -> class
    "swin_gait": "kprpe_jax.backbones.swin_gait:SwinGait",
    "gaitset": "kprpe_jax.backbones.gaitset:GaitSet",
    "gaitbase": "kprpe_jax.backbones.gaitbase:GaitBase",
}

POSITIONS = {  # config.model.position of a ViT -> `position.encoding.Encoding`
    "rpe": "kprpe_jax.position.encoding:RPE",
    "irpe": "kprpe_jax.position.encoding:IRPE",
    "kprpe_absolute": "kprpe_jax.position.encoding:KPRPE",
    "kprpe_relative": "kprpe_jax.position.encoding:KPRPE",
    "kprpe_multihead": "kprpe_jax.position.encoding:KPRPE",
    "kprpe_scalar": "kprpe_jax.position.encoding:KPRPE",
}

FUSIONS = {  # config.fusion.method -> class with init_state, update, merge, finalize
    "cluster_aggregate": "kprpe_jax.fusion.cluster_aggregate:ClusterAggregate",
    "average": "kprpe_jax.fusion.weighted:WeightedFusion",
    "norm_weighted": "kprpe_jax.fusion.weighted:WeightedFusion",
    "pfe": "kprpe_jax.fusion.weighted:WeightedFusion",
    "cfan": "kprpe_jax.fusion.weighted:WeightedFusion",
    "rsa": "kprpe_jax.fusion.weighted:WeightedFusion",
    "inlier_average": "kprpe_jax.fusion.weighted:WeightedFusion",
    "proxy_fusion": "kprpe_jax.fusion.proxy_fusion:ProxyFusion",
    "detection_score": "kprpe_jax.fusion.scored:ScoredFusion",
    "norm_detection_score": "kprpe_jax.fusion.scored:ScoredFusion",
    "landmark_score": "kprpe_jax.fusion.scored:ScoredFusion",
}

# Reads `fusion` of a template protocol, which may name a run.
LOAD_FUSION = "kprpe_jax.recognizers:load_fusion"
# Read `config.model.weights` and `config.backbone_weights`, which may name runs, too.
LOAD_START = "kprpe_jax.recognizers:load_start"
LOAD_RECOGNIZER = "kprpe_jax.recognizers:load_recognizer"


def find(name: str, names: Iterable[str], what: str) -> str:
    """Check a name against those that there are.

    Raises: ValueError: unknown; the message has the nearest ones.
    """
    names = list(names)
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.3) or names[:3]
    raise ValueError(
        f"unknown {what} {name!r}; did you mean {', '.join(near)}? (list them with "
        "`kprpe-jax models`)"
    )


_EVALUATORS = "kprpe_jax.evaluation.evaluators"
EVALUATORS = {  # what is evaluated -> type of `config.evals.NAME` -> builder
    "faces": {
        "verification": f"{_EVALUATORS}.verification:build",
        "official_pairs": f"{_EVALUATORS}.official_pairs:build",
        "partly_aligned": f"{_EVALUATORS}.partly_aligned:build",
        "identification": f"{_EVALUATORS}.identification:build",
        "ijb": f"{_EVALUATORS}.ijb:build",
        "tinyface": f"{_EVALUATORS}.tinyface:build",
        "video": f"{_EVALUATORS}.video:build",
        "megaface": f"{_EVALUATORS}.megaface:build",
    },
    "digits": {
        "accuracy": f"{_EVALUATORS}.accuracy:build",
        "affnist": f"{_EVALUATORS}.accuracy:build_affnist",
    },
    "aligned faces": {
        "aligned_recognition": f"{_EVALUATORS}.aligned_recognition:build",
    },
    "landmarks": {"landmark_errors": f"{_EVALUATORS}.landmark_errors:build"},
    "gait": {"gait_search": f"{_EVALUATORS}.gait_search:build"},
    "image sets": {"growing_probes": "kprpe_jax.tasks.growing_probes:build"},
    "pairs": {"matched_pairs": "kprpe_jax.tasks.pair_matching:build_evaluator"},
}


def nearest(name: str, names: Iterable[str]) -> str:
    """Say "the nearest is NAME", for a message about an unknown name."""
    near = difflib.get_close_matches(str(name), list(names), n=1, cutoff=0.0)
    return f"the nearest is {near[0]}" if near else "there is none"


def network(name: str, kind: str | None = None) -> PublishedNetwork:
    """The published network of a name.

    Args:
      name: key of NETWORKS.
      kind: one of KINDS; None = any. A backbone of FUSIONS_OF, whose file holds a
        fusion model, too, is that model where "fusion" is asked for.
    Raises: ValueError: unknown, or of another kind.
    """
    if kind == "fusion":
        name = FUSIONS_OF.get(name, name)
    if kind and name in NETWORKS and NETWORKS[name].kind != kind:
        article = "an" if NETWORKS[name].kind[0] in "aeiou" else "a"
        raise ValueError(
            f"{name} is {article} {NETWORKS[name].kind} network; a {kind} is needed "
            "here; see `kprpe-jax models`"
        )
    names = [n for n, x in NETWORKS.items() if kind in (None, x.kind)]
    return NETWORKS[find(name, names, kind or "network")]


_IMPORTERS = "kprpe_jax.data.importers."
IMPORTERS = {  # kind of `kprpe-jax import` -> function that opens its source
    "insightface_rec": _IMPORTERS + "record_io:open_record_io",
    "insightface_bin": _IMPORTERS + "verification_bin:open_verification_bin",
    "folder": _IMPORTERS + "image_folder:open_image_folder",
    "list": _IMPORTERS + "image_list:open_image_list",
    "tar": _IMPORTERS + "tar_images:open_tar_images",
    "ijb": _IMPORTERS + "ijb:open_ijb",
    "tinyface": _IMPORTERS + "tinyface:open_tinyface",
    "video": _IMPORTERS + "video_templates:open_video_templates",
    "wider_face": _IMPORTERS + "wider_face:open_wider_face",
    "arrays": _IMPORTERS + "arrays:open_arrays",
    "prepared": _IMPORTERS + "prepared:open_prepared",
    "gait": _IMPORTERS + "gait:open_gait_folder",
    "idx": _IMPORTERS + "idx_digits:open_idx_digits",
}
DATA_SETS = {  # data.name -> builder of a data set that is prepared without files
    "digits": "kprpe_jax.data.builders:Digits",
    "synthetic_faces": "kprpe_jax.data.synthetic.builder:SyntheticFaces",
    "synthetic_walkers": "kprpe_jax.data.synthetic.walker_builder:SyntheticWalkers",
}
