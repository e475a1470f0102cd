"""`configs/lfw.py` with a network for minutes on a CPU: how do encodings compare?

python -m experiments encodings --config configs/lfw_small.py \\
    --positions absolute,irpe,kprpe_multihead --output reports/lfw_half

The import is that of configs/lfw.py. 6,364 photos of 2,166 people are far too few for
the level that papers report; the recipe, KP-RPE's augmentation, is theirs.
"""

from ml_collections import ConfigDict

from kprpe_jax.backbones.vit import PRESETS
from kprpe_jax.configs import lfw
from kprpe_jax.configs.base import set_evaluators, verification_evaluators


def get_config(position: str = "kprpe_multihead") -> ConfigDict:
    """Configure a run with one of the encodings of `kprpe_jax.position.encoding`."""
    config = lfw.get_config(position)
    config.steps = 600
    config.model.update(PRESETS["tiny"] | dict(image_size=(112, 112), patch_size=16))
    config.model.output_dim = 128
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup = 100.0
    config.model.position_options.anchor_width = 0.07  # decision 004
    config.optimizer.position_factor = 10.0  # as in short runs on digits, decision 003
    set_evaluators(
        config,
        verification_evaluators((0.25, 0.5, 0.75, 1.0, 1.5), **lfw.HELD_OUT),
    )
    config.evals.every_steps = 300
    config.evals.in_training = ("aligned",)
    config.checkpoint.every_steps = 300
    return config
