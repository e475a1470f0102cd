"""Handwritten digits from scikit-learn, moved about on a 40 x 40 canvas.

The experiment of KP-RPE, Fig. 1: trained on translated digits, tested on rotated,
sheared and scaled ones.

    python train.py --config configs/digits.py --workdir runs/digits
    python train.py --config configs/digits.py:absolute --workdir runs/absolute
    python eval.py --model runs/digits

About a minute and a half a run on two CPU cores; `make demo` compares encodings.
"""

from ml_collections import ConfigDict

from kprpe_jax.configs.base import make_base, set_evaluators, vit_fields
from kprpe_jax.data.keypoints import BOX_POINTS


def get_config(position: str = "kprpe_multihead") -> ConfigDict:
    """Configure a run with one of the encodings of `kprpe_jax.position.encoding`."""
    config = make_base("classification", steps=800)

    config.data.name = "digits"
    config.data.test_split = "test"
    config.data.batch_size = 64
    config.data.num_classes = 10
    config.data.image_shape = (28, 28, 1)
    config.data.num_keypoints = 5  # in the data; the model may use fewer

    config.canvas = ConfigDict()
    config.canvas.size = 40  # pixels

    config.backbone = "vit"
    config.model = vit_fields(position)
    # Anchored initialization, where the encoding can: every head's table starts at a
    # point of the digit's box (decision 004).
    config.model.position_options.anchor_width = 0.07
    config.model.position_options.anchor_template = BOX_POINTS

    config.loss = ConfigDict()
    config.loss.label_smoothing = 0.0

    config.optimizer.learning_rate = 4e-3
    config.optimizer.warmup = 50.0
    config.optimizer.clip_norm = 1.0
    # Position parameters learn faster: a short run would starve them (decision 003).
    config.optimizer.position_factor = 10.0

    config.checkpoint.best_metric = "clean/accuracy"

    config.evals = ConfigDict()
    config.evals.every_steps = 200
    config.evals.in_training = ("clean", "affine")
    config.evals.batch_size = 128
    upright = dict(type="accuracy", repeats=4)  # random distortions of each test row
    affine = {**upright, "severity": 1.0}
    set_evaluators(
        config,
        {
            "clean": upright,
            "affine": affine,
            "affine_box": {**affine, "keypoints": "box"},
            "affine_swapped": {**affine, "keypoints": "swapped"},
            "sweep": {**upright, "severities": (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)},
            "noise": {**affine, "alphas": (0.0, 0.02, 0.05, 0.1)},
        },
    )
    return config
