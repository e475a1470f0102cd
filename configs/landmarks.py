"""Train the differentiable face aligner on crops of synthetic faces.

Source: KP-RPE, Supp. 3: crops of 160 pixels by the face's box with a border of 0.1, a
detector with landmarks and the mixer of its anchors, trained together.

    python train.py --config configs/landmarks.py --workdir runs/landmarks
    python train.py --config configs/landmarks.py:small --workdir runs/landmarks_small
    python train.py --config configs/landmarks.py:wider_face --workdir runs/wider

"small" sees crops of 64 pixels and trains in CPU minutes. "wider_face" takes the photos
that the paper takes; LABELS is the label file with five points for each face:

    kprpe-jax import wider_face --source LABELS \\
        --name wider_face --split train --on-error skip

"lfw" is "small" on photos that RetinaFace has labeled: ARCHIVE and POINTS are those of
`configs/lfw.py`, without the people of the photos to test on, whose five points a hand
has labeled.

    kprpe-jax import tar --source ARCHIVE \\
        --name lfw_others --landmarks POINTS --landmark-units pixel \\
        --landmark-array points112
    kprpe-jax import tar --source LABELED \\
        --name labeled --landmarks LABELS --landmark-units pixel \\
        --landmark-array points150
    python train.py --config configs/landmarks.py:lfw --workdir runs/landmarks_lfw
    python eval.py --model runs/landmarks_lfw@last --config.data.name=labeled \\
        --config.data.image_shape="(150, 150, 3)"
"""

from ml_collections import ConfigDict

from kprpe_jax.configs.base import (
    change_evaluators,
    check_argument,
    make_base,
    set_evaluators,
)
from kprpe_jax.data.synthetic.landmarks import KEYPOINTS

SIZES = ("full", "small", "wider_face", "lfw")


def get_config(size: str = "full") -> ConfigDict:
    """Configure a run, one of SIZES."""
    check_argument(size, SIZES)
    config = make_base("landmarks", steps=20_000)

    config.data.name = "synthetic_faces"
    config.data.dir = "data/free"
    config.data.batch_size = 64
    config.data.builder = ConfigDict(
        dict(
            num_identities=2000,
            num_test_identities=200,
            images_per_identity=4,
            layout="free",  # anywhere in the frame, turned by up to 30 degrees
            size=160,
        )
    )
    config.data.points = "landmarks"  # their box is the face's
    config.data.num_keypoints = 84
    config.data.five = tuple(KEYPOINTS.tolist())  # those that are learned
    config.data.num_classes = 2000
    config.data.image_shape = (160, 160, 3)

    config.crop = ConfigDict(dict(box="points", padding=0.1, jitter=0.1))
    config.augmentation = ConfigDict()
    config.augmentation.preset = "none"
    config.augmentation.changes = ConfigDict(
        dict(
            spatial=dict(flip_prob=0.5, rotation_prob=0.5, rotation_degrees=20.0),
            blur=dict(prob=0.2),
            photometric=dict(prob=0.3, kind="jitter"),
        )
    )

    config.model = ConfigDict()
    config.model.input_size = 160
    config.model.anchors = ((64, 80), (96, 112), (128, 144))
    config.model.mixer_input = "raw"
    config.model.stem = 8
    config.model.width = 64
    config.model.activation = "leaky_relu"
    config.model.pixels = "rgb"
    config.model.dtype = "float32"

    config.loss = ConfigDict(dict(mixer_weight=1.0))  # 0: plain RetinaFace

    config.optimizer.warmup = 50.0
    config.optimizer.weight_decay = 5e-4
    config.optimizer.clip_norm = 1.0

    config.evals = ConfigDict()
    config.evals.batch_size = 128
    set_evaluators(
        config,
        {
            name: dict(type="landmark_errors", predictor=name, split="test")
            for name in ("mixer", "nms")
        },
    )
    config.evals.in_training = ("mixer", "nms")
    config.evals.every_steps = 1000
    config.checkpoint.best_metric = "mixer/nme"
    config.checkpoint.best_mode = "min"
    config.checkpoint.every_steps = 1000
    if size in ("small", "lfw"):
        _shrink(config)
    if size == "lfw":
        _read_photos(config, "lfw_others", people=3961, image_shape=(112, 112, 3))
        config.crop.padding = 0.5  # the five points' box is half of a face's
        config.augmentation.changes.spatial.rotation_prob = 1.0  # they stand upright
        config.augmentation.changes.spatial.rotation_degrees = 30.0
    if size == "wider_face":
        _read_photos(config, "wider_face", people=1, image_shape=(288, 288, 3))
        config.crop.box = "frame"  # as it was labeled
    return config


def _shrink(config: ConfigDict) -> None:
    config.steps = 1000
    config.data.dir = "data/free_small"
    config.data.builder.size = 96
    config.data.image_shape = (96, 96, 3)
    config.data.batch_size = 32
    config.model.input_size = 64
    config.model.anchors = ((26, 32), (38, 45), (51, 58))  # in the same proportion
    config.model.width = 32
    config.optimizer.learning_rate = 4e-3
    config.evals.in_training = ()
    config.checkpoint.best_metric = ""


def _read_photos(
    config: ConfigDict, name: str, *, people: int, image_shape: tuple[int, int, int]
) -> None:
    """An import with five points, which has one split: import another to test on."""
    del config.data.builder
    config.data.name = name
    config.data.dir = "data"
    config.data.points = "keypoints"
    config.data.num_keypoints = 5
    config.data.five = (0, 1, 2, 3, 4)
    config.data.num_classes = people
    config.data.image_shape = image_shape
    change_evaluators(config, split="train")
