"""The small network of the package and its twin: synthetic faces, all augmentation.

    kprpe-jax train --config tiny_synthetic --workdir runs/tiny
    kprpe-jax train --config tiny_synthetic:absolute --workdir runs/tiny-absolute

2,000 synthetic people, the paper's augmentation, KP-RPE with anchored initialization;
its twin has an absolute encoding. The first start renders the data set into
data/tiny_synthetic, 44,000 images, in a few minutes (docs/synthetic_network.md).
"""

from ml_collections import ConfigDict

from kprpe_jax.configs import synthetic_faces
from kprpe_jax.configs.base import set_evaluators, verification_evaluators

NUM_TRAINED = 2000


def get_config(position: str = "kprpe_multihead") -> ConfigDict:
    """Configure a run with one of the encodings of `kprpe_jax.position.encoding`."""
    config = synthetic_faces.get_config(position)
    config.steps = 10_000

    config.data.num_classes = NUM_TRAINED
    config.data.builder.num_identities = NUM_TRAINED
    config.data.builder.num_test_identities = 200
    config.data.dir = "data/tiny_synthetic"

    config.augmentation.preset = "kprpe"
    config.augmentation.changes = ConfigDict()

    config.model.position_options.anchor_width = 0.07  # decision 004
    config.optimizer.position_factor = 10.0  # decision 003
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup = 500.0

    set_evaluators(
        config,
        verification_evaluators((0.25, 0.5, 0.75, 1.0, 1.5), split="test", pairs=3000),
    )
    config.evals.every_steps = 2000
    config.evals.in_training = ("aligned",)
    config.checkpoint.every_steps = 500
    return config
