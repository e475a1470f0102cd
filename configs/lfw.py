"""Half of LFW's people to train, the other half to verify, aligned and misaligned.

Too small a data set for the level that papers report, but real: judge how encodings
compare. ARCHIVE holds aligned 112 x 112 photos as Name/Name_0001.jpg, POINTS their
landmarks in pixels (an .npz with `names` and `points112`, or a CSV).

kprpe-jax import tar --source ARCHIVE --name lfw \\
    --data-dir data --landmarks POINTS --landmark-units pixel --landmark-array points112
python train.py --config configs/lfw.py --workdir runs/lfw
python train.py --config configs/lfw.py:rpe --workdir runs/lfw-rpe
"""

from ml_collections import ConfigDict

from kprpe_jax.configs.base import (
    make_base,
    margin_loss_fields,
    set_evaluators,
    verification_evaluators,
    vit_fields,
)
from kprpe_jax.geometry.template import FACE_POINTS

NUM_TRAINED = 2166  # of 4,333 people
HELD_OUT = dict(
    split="train",  # the import has one; the identities tell them apart
    identities=(NUM_TRAINED, 2 * NUM_TRAINED + 1),
    pairs=3000,
)


def get_config(position: str = "kprpe_multihead") -> ConfigDict:
    """Configure a run with one of the encodings of `kprpe_jax.position.encoding`."""
    config = make_base("face_recognition", steps=2000)

    config.data.name = "lfw"
    config.data.batch_size = 64
    config.data.num_classes = NUM_TRAINED
    config.data.train_identities = (0, NUM_TRAINED)
    config.data.image_shape = (112, 112, 3)
    config.data.points = "keypoints"  # field of the rows that they come from
    config.data.num_keypoints = 5
    config.data.images_per_identity = 0  # > 0: so many of each person in a batch
    config.data.repeat_probability = 0.1

    config.augmentation = ConfigDict()
    config.augmentation.preset = "kprpe"
    config.augmentation.changes = ConfigDict()

    config.backbone = "vit"
    config.model = vit_fields(position)
    config.model.update(
        dict(image_size=(112, 112), patch_size=14, width=192, depth=6, num_heads=6)
    )
    config.model.output_dim = 128
    config.model.position_options.anchor_template = FACE_POINTS

    config.loss = margin_loss_fields()

    config.optimizer.warmup = 200.0
    config.optimizer.clip_norm = 1.0

    config.evals = ConfigDict()
    config.evals.batch_size = 128
    config.evals.in_training = ("aligned", "misaligned_1")
    config.evals.every_steps = 500
    set_evaluators(config, verification_evaluators((0.5, 1.0), **HELD_OUT))
    config.checkpoint.best_metric = "aligned/accuracy"
    config.checkpoint.every_steps = 500
    return config
