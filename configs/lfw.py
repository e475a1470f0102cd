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

from kprpe_jax.configs.base import make_base, margin_loss_fields, vit_fields
from kprpe_jax.geometry.template import FACE_POINTS

NUM_TRAINED = 2166  # of 4,333 people


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
    config.evals.split = "train"  # the import has one; the people tell them apart
    config.evals.identities = (NUM_TRAINED, 2 * NUM_TRAINED + 1)
    config.evals.pairs = 3000
    config.evals.pairs_of = ""  # a data set whose official pairs are compared instead
    config.evals.severities = (0.5, 1.0)
    config.evals.alphas = ()  # errors of the keypoints that are also tried
    config.evals.pair_sets = ()  # data sets with an official list of pairs
    # Photos of any size, verified on every step from detection (0) to alignment (1).
    config.evals.unaligned = ""
    config.evals.alignment_shares = (0.0, 0.25, 0.5, 0.75, 1.0)
    # Such as "ijb:ijbc", see `evaluation.face_protocols`; pooling of templates: see
    # there, too; align: photos of any size are aligned first.
    config.evals.protocols = ()
    config.evals.pooling = "norm"
    config.evals.align = False
    # Also who is found by altered queries: plain, crop, mask, sunglasses, turn,
    # adversarial.
    config.evals.altered = ()
    # Of a face's embedding and its mirror image's; or concatenate, or none. Altered
    # queries are embedded alone.
    config.evals.mirror = "sum"
    config.evals.in_training = ("aligned", "misaligned_1")
    config.evals.every_steps = 500
    config.checkpoint.best_metric = "aligned/accuracy"
    config.checkpoint.every_steps = 500
    return config
