"""Synthetic faces, without a download: 500 people to train, 100 others to verify.

    python train.py --config configs/synthetic_faces.py --workdir runs/synthetic
    python train.py --config configs/synthetic_faces.py:absolute --workdir runs/absolute
    python eval.py --model runs/synthetic

The first start renders the data set into data/synthetic_faces, in half a minute. How
hard it is: docs/data.md.
"""

from ml_collections import ConfigDict

from kprpe_jax.backbones.vit import PRESETS
from kprpe_jax.configs import lfw
from kprpe_jax.configs.base import set_evaluators, verification_evaluators

NUM_TRAINED = 500


def get_config(position: str = "kprpe_multihead") -> ConfigDict:
    """Configure a run with one of the encodings of `kprpe_jax.position.encoding`."""
    config = lfw.get_config(position)
    config.steps = 600

    config.data.name = "synthetic_faces"
    config.data.num_classes = NUM_TRAINED
    config.data.train_identities = ()
    config.data.repeat_probability = 0.0
    # What the data set is made of, as the options of `kprpe-jax synthesize faces`.
    config.data.builder = ConfigDict()
    config.data.builder.num_identities = NUM_TRAINED
    config.data.builder.num_test_identities = 100
    config.data.builder.images_per_identity = 20
    config.data.builder.seed = 0
    config.data.builder.difficulty = 1.0
    config.data.builder.size = 112

    # The pictures differ enough; only the mirror image is missing.
    config.augmentation.preset = "none"
    config.augmentation.changes = dict(spatial=dict(flip_prob=0.5))

    # A network for minutes on a CPU.
    config.model.update(PRESETS["tiny"] | dict(image_size=(112, 112), patch_size=16))
    config.model.output_dim = 128
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup = 100.0

    set_evaluators(config, verification_evaluators((1.0,), split="test", pairs=3000))
    config.evals.every_steps = 300
    config.checkpoint.every_steps = 300
    return config
