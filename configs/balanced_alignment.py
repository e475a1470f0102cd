"""Balanced alignment on synthetic faces: recognition and alignment learned together.

Synthetic faces with 84 landmarks of 200 people, turned, scaled and shifted at random;
100 others to test on. Source: Balanced Alignment, Secs. 4 and 5.

    python train.py --config configs/balanced_alignment.py --workdir runs/tps
    python train.py --config configs/balanced_alignment.py:affine2d --workdir runs/2d

`config.alignment.strength` is the paper's lambda. The argument is one of the methods of
`kprpe_jax.alignment.aligned_backbone`, or one of VARIANTS. A network of the
paper's size: take `kprpe_jax.backbones.iresnet.PRESETS["ir34"]`, widths (64, 128, 256,
512) and SGD as in Sec. 5.1. ORL is imported as `configs/orl.py` says, but aligned with
`--size=32,32` and as `--name orl_aligned_32`. FRAMES are 100 people of LFW's full
frames, two photos each:

    kprpe-jax align --photos FRAMES --output frames --size 32x32 --points 68
    kprpe-jax import folder --source frames/aligned --name frames_68 \\
        --landmarks frames/aligned_landmarks.csv
    kprpe-jax train --config balanced_alignment:frames --workdir runs/frames
"""

from ml_collections import ConfigDict

from kprpe_jax.alignment.aligned_backbone import METHODS
from kprpe_jax.backbones.vit import PRESETS
from kprpe_jax.configs import lfw, orl
from kprpe_jax.configs.base import (
    change_evaluators,
    check_argument,
    make_base,
    margin_loss_fields,
    set_evaluators,
)
from kprpe_jax.data.synthetic.landmarks import KEYPOINTS

# With a spline: "kprpe" in front of a keypoint transformer; "small" and "small_kprpe"
# in CPU minutes, as are "orl" and "frames", on photos.
VARIANTS = ("kprpe", "small", "small_kprpe", "orl", "frames")


def get_config(method: str = "tps") -> ConfigDict:
    """Configure a run with one of the methods, or one of VARIANTS."""
    check_argument(method, (*METHODS, *VARIANTS))
    variant = method if method in VARIANTS else ""
    config = make_base("joint_alignment", steps=1000)

    config.data.name = "synthetic_faces"
    config.data.dir = "data/people_200"  # fewer than of configs/synthetic_faces.py
    config.data.points = "landmarks"  # or keypoints: five
    config.data.num_keypoints = 84
    config.data.num_classes = 200
    config.data.train_identities = ()
    config.data.image_shape = (112, 112, 3)
    config.data.batch_size = 64
    config.data.builder = ConfigDict(
        dict(
            num_identities=200,
            num_test_identities=100,
            images_per_identity=20,
            size=112,
        )
    )

    config.alignment = ConfigDict()
    config.alignment.method = "tps" if variant else method
    config.alignment.strength = 3.0  # lambda of Eq. 5; 0 = a plain spatial transformer
    config.alignment.after = "stem_act"  # stage 0 of an iResNet; or input
    config.alignment.control = (8, 8)  # rows and columns of control points
    config.alignment.points = tuple(KEYPOINTS.tolist())  # of the 84
    config.alignment.template = "frontal"  # or the .npz file of another run
    config.alignment.learn_template = True
    config.alignment.learn_weights = True
    # ResNet-18's mean over places learns more slowly where things are.
    config.alignment.localization = ConfigDict(dict(blocks=2, pool="flatten"))

    config.augmentation = ConfigDict()
    config.augmentation.preset = "none"
    config.augmentation.changes = ConfigDict(
        dict(
            spatial=dict(
                flip_prob=0.5,
                rotation_prob=1.0,
                rotation_degrees=30.0,
                scale_prob=1.0,
                scale=(0.75, 1.25),
                translation_prob=1.0,
                translation=0.2,
            )
        )
    )

    config.backbone = "iresnet"
    config.model = ConfigDict()
    config.model.stage_sizes = (1, 1, 1, 1)
    config.model.widths = (16, 32, 64, 128)
    config.model.image_size = (112, 112)
    config.model.output_dim = 128
    config.model.dropout_rate = 0.0
    config.model.dtype = "float32"

    config.loss = margin_loss_fields()  # cosface of 0.35 is AM-Softmax
    config.loss.scale = 64.0

    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup = 50.0
    config.optimizer.clip_norm = 1.0

    config.evals = ConfigDict()
    config.evals.batch_size = 100
    aligned = dict(type="aligned_recognition", split="test", pairs=2000)
    misaligned = {**aligned, "severity": 1.0}
    set_evaluators(config, {"aligned": aligned, "misaligned_1": misaligned})
    config.evals.in_training = ("aligned", "misaligned_1")
    config.evals.every_steps = 500
    config.checkpoint.best_metric = "misaligned_1/rank_1"
    config.checkpoint.every_steps = 500
    if variant in ("kprpe", "small_kprpe"):  # its keypoints go through the warp, too
        config.backbone = "vit"
        config.model = lfw.get_config().model
        config.alignment.after = "input"
    if variant in ("small", "small_kprpe", "orl", "frames"):
        _shrink(config)
    if variant == "orl":
        _read_orl(config)
    if variant == "frames":
        _read_frames(config)
    return config


def _shrink(config: ConfigDict) -> None:
    """Faces of 32 pixels and thin networks, as the study trains many of them."""
    config.steps = 1000
    config.data.dir = "data/small"
    config.data.batch_size = 32
    config.data.builder.size = 32
    config.data.image_shape = (32, 32, 3)
    if config.backbone == "vit":
        config.model.update(PRESETS["tiny"] | dict(patch_size=4))
        config.model.output_dim = 128
        config.optimizer.position_factor = 10.0  # as in short runs, decision 003
        config.model.position_options.anchor_width = 0.07  # decision 004
    else:
        config.model.widths = (8, 16, 32, 64)
    config.model.image_size = (32, 32)
    config.alignment.localization.blocks = 1
    config.evals.in_training = ()
    config.checkpoint.every_steps = 1000
    config.checkpoint.best_metric = ""


def _read_orl(config: ConfigDict) -> None:
    """30 people of ORL, with the five points that our own aligner finds."""
    people = orl.get_config()
    del config.data.builder
    config.steps = 500
    config.data.name = "orl_aligned_32"
    for field in ("dir", "points", "num_keypoints"):
        config.data[field] = people.data[field]
    config.data.num_classes = people.data.num_classes
    config.data.train_identities = people.data.train_identities
    config.alignment.points = (0, 1, 2, 3, 4)
    change_evaluators(config, **orl.HELD_OUT)
    config.checkpoint.every_steps = 500


def _read_frames(config: ConfigDict) -> None:
    """80 people of LFW's frames, with 68 points of FaceMesh in iBUG's order."""
    del config.data.builder
    config.steps = 300
    config.data.dir = "data"
    config.data.name = "frames_68"
    config.data.num_keypoints = 68
    config.data.num_classes = 80
    config.data.train_identities = (0, 80)
    # Outer corners of the eyes, tip of the nose, corners of the mouth.
    config.alignment.points = (36, 45, 30, 48, 54)
    change_evaluators(config, split="train", identities=(80, 100), pairs=40)
    config.checkpoint.every_steps = 300
