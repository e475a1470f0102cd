"""Every published network by name: architecture, input contract, license, source.

Data only: a list of names imports no network. A published name is an architecture with
a contract; `recognizers.load_recognizer` joins it with a file of weights.
"""

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from kprpe_jax.core.input_spec import InputSpec

KINDS = ("recognizer", "detector", "fusion", "pair matcher", "gait")


class PublishedNetwork(NamedTuple):
    """A published network.

    Attributes:
      kind: what it does, one of KINDS.
      build: "module:function" that makes the Flax module.
      fields: keyword arguments of `build`.
      weights: module with the rules of its published files.
      size: in words.
      parameters: how many numbers are learned, in millions.
      license: of the code, and what the weights were trained on.
      source: where its files come from.
      input_spec: the input contract; None for what reads no single image.
    """

    kind: str
    build: str
    fields: Mapping[str, Any]
    weights: str
    size: str
    parameters: float
    license: str
    source: str
    input_spec: InputSpec | None = None

    def make(self, **fields: Any) -> Any:
        """Make the Flax module; `fields` replace or add to the registered ones."""
        return resolve(self.build)(**{**self.fields, **fields})


def resolve(path: str) -> Any:
    """Import "module:attribute"."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


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


_CVLFACE = (
    "CVLface: MIT; weights by the terms of their data",
    "huggingface.co/minchul",
)
_INSIGHTFACE = (
    "arcface_torch: MIT; weights for non-commercial research",
    "github.com/deepinsight/insightface",
)
_DEEPFACE_EMD = ("MIT; weights by the terms of their data", "github.com/anguyen8")
_CAFACE = ("MIT; weights by the terms of their data", "github.com/mk-minchul/caface")


def _recognizer(
    build: str,
    fields: Mapping[str, Any],
    weights: str,
    size: str,
    parameters: float,
    terms: tuple[str, str],
    **spec: Any,
) -> PublishedNetwork:
    spec = InputSpec(**{"image_size": (112, 112), **spec})
    weights = f"kprpe_jax.weights.{weights}"
    return PublishedNetwork(
        "recognizer", build, fields, weights, size, parameters, *terms, spec
    )


def _by_name(family: str, build: str, name: str, parameters: float, **more: Any):
    """A network whose builder takes its name."""
    terms = more.pop("terms", _CVLFACE)
    path = f"kprpe_jax.weights.{build}"
    size = name.removeprefix("iresnet_insightface_").removeprefix("iresnet_")
    size = size.split("_")[-1] if size.startswith("ir") else size
    for word in ("small", "base"):
        size = word if word in name else size
    return _recognizer(path, dict(name=name), family, size, parameters, terms, **more)


_VITS = {  # millions of parameters
    "vit_small": 95.952, "vit_base": 114.870,
    "vit_irpe_small": 96.065, "vit_irpe_base": 114.983,
    "vit_irpe_small_qkv": 96.065, "vit_irpe_base_qkv": 114.983,
    "vit_irpe_small_k": 95.990, "vit_irpe_base_k": 114.907,
    "vit_kprpe_small_absolute": 95.953, "vit_kprpe_base_absolute": 114.870,
    "vit_kprpe_small_relative": 95.953, "vit_kprpe_base_relative": 114.870,
    "vit_kprpe_small_splithead": 95.957, "vit_kprpe_base_splithead": 114.878,
    "vit_kprpe_small_multihead": 96.004, "vit_kprpe_base_multihead": 115.077,
}  # fmt: skip
_SWINS = {
    "swin_small": 44.651, "swin_base": 177.516,
    "swin_kprpe_small": 94.652, "swin_kprpe_base": 113.618,
}  # fmt: skip
_IRESNETS = {"ir18": 24.020, "ir34": 34.134, "ir50": 43.586, "ir101": 65.151}


def _points(name: str) -> int:
    return 5 if "kprpe" in name else 0


BACKBONES = {  # config.backbone -> class whose fields `config.model` has
    "vit": "kprpe_jax.backbones.vit:ViT",
    "swin": "kprpe_jax.backbones.swin:Swin",
    "iresnet": "kprpe_jax.backbones.iresnet:IResNet",
    "mobilefacenet": "kprpe_jax.backbones.mobilefacenet:MobileFaceNet",
    "arcface_resnet": "kprpe_jax.backbones.arcface_resnet:ArcFaceResNet",
    "sphereface": "kprpe_jax.backbones.sphereface:SphereFace",
    "inception_resnet": "kprpe_jax.backbones.inception_resnet:InceptionResNet",
}

MARGINS = {  # config.loss.margin_kind -> `losses.margin.MarginRule`
    "cosine": "kprpe_jax.losses.margin:COSINE",
    "cosface": "kprpe_jax.losses.margin:COSFACE",
    "arcface": "kprpe_jax.losses.margin:ARCFACE",
    "adaface": "kprpe_jax.losses.margin:ADAFACE",
}

POSITIONS = {  # config.model.position of a ViT -> `position.encoding.Encoding`
    "rpe": "kprpe_jax.position.encoding:RPE",
    "irpe": "kprpe_jax.position.encoding:IRPE",
    "kprpe_absolute": "kprpe_jax.position.encoding:KPRPE",
    "kprpe_relative": "kprpe_jax.position.encoding:KPRPE",
    "kprpe_multihead": "kprpe_jax.position.encoding:KPRPE",
    "kprpe_scalar": "kprpe_jax.position.encoding:KPRPE",
}

NETWORKS: dict[str, PublishedNetwork] = {
    **{
        name: _by_name(
            "vit", "official_vit:official_vit", name, m, num_keypoints=_points(name)
        )
        for name, m in _VITS.items()
    },
    **{
        name: _by_name(
            "swin", "swin:official_swin", name, m, num_keypoints=_points(name)
        )
        for name, m in _SWINS.items()
    },
    **{
        f"iresnet_{size}": _by_name(
            "iresnet", "iresnet:official_iresnet", f"iresnet_{size}", m
        )
        for size, m in _IRESNETS.items()
    },
    **{
        f"iresnet_insightface_{size}": _by_name(
            "iresnet",
            "iresnet:official_iresnet",
            f"iresnet_insightface_{size}",
            m + 0.005,
            terms=_INSIGHTFACE,
        )
        for size, m in _IRESNETS.items()
    },
    "mobilefacenet": _recognizer(
        "kprpe_jax.weights.mobilefacenet:published_mobilefacenet",
        {},
        "mobilefacenet",
        "1.0",
        1.000,
        (
            "no license stated; research only",
            "github.com/Xiaoccer/MobileFaceNet_Pytorch",
        ),
        image_size=(112, 96),
        scale=128.0,
    ),
    "deepface_emd_arcface": _recognizer(
        "kprpe_jax.backbones.arcface_resnet:ArcFaceResNet",
        {},
        "patch_backbones",
        "18 layers",
        25.627,
        _DEEPFACE_EMD,
        image_size=(128, 128),
        color="gray",
    ),
    "deepface_emd_cosface": _recognizer(
        "kprpe_jax.backbones.sphereface:SphereFace",
        {},
        "patch_backbones",
        "20 layers",
        22.667,
        _DEEPFACE_EMD,
        image_size=(112, 96),
    ),
    "deepface_emd_facenet": _recognizer(
        "kprpe_jax.backbones.inception_resnet:InceptionResNet",
        {},
        "patch_backbones",
        "Inception-ResNet v1",
        23.483,
        _DEEPFACE_EMD,
        image_size=(160, 160),
        mean=0.0,
        scale=255.0,
    ),
    "facenet": _recognizer(
        "kprpe_jax.backbones.inception_resnet:InceptionResNet",
        {},
        "patch_backbones",
        "Inception-ResNet v1",
        23.483,
        ("facenet-pytorch: MIT", "github.com/timesler/facenet-pytorch"),
        image_size=(160, 160),
        scale=128.0,
        framing="crop",
    ),
    "retinaface_mnet025": PublishedNetwork(
        "detector",
        "kprpe_jax.weights.retinaface:official_retinaface",
        {},
        "kprpe_jax.weights.retinaface",
        "MobileNet 0.25",
        0.427,
        "MIT; trained on WIDER FACE",
        "github.com/biubug6/Face-Detector-1MB-with-landmark",
    ),
    "dfa_mobilenet025": PublishedNetwork(
        "detector",
        "kprpe_jax.weights.retinaface:official_aligner",
        {},
        "kprpe_jax.weights.retinaface",
        "MobileNet 0.25 and mixer",
        0.487,
        *_CVLFACE,
    ),
    "caface_g4_conf512": PublishedNetwork(
        "fusion",
        "kprpe_jax.weights.caface:official_caface",
        dict(name="caface_g4_conf512"),
        "kprpe_jax.weights.caface",
        "4 clusters",
        0.0,
        *_CAFACE,
    ),
    "caface_g2_conf1": PublishedNetwork(
        "fusion",
        "kprpe_jax.weights.caface:official_caface",
        dict(name="caface_g2_conf1"),
        "kprpe_jax.weights.caface",
        "2 clusters",
        0.0,
        *_CAFACE,
    ),
}
# The same networks by the names of other releases.
NETWORKS["caface_backbone_ir101_tface"] = NETWORKS["iresnet_ir101"]
NETWORKS["caface_backbone_iresnet100"] = NETWORKS["iresnet_insightface_ir101"]


def network(name: str, kind: str | None = None) -> PublishedNetwork:
    """The published network of a name.

    Args:
      name: key of NETWORKS.
      kind: one of KINDS; None = any.
    Raises: ValueError: unknown, or of another kind.
    """
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
