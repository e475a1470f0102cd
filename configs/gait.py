"""Synthetic walkers: small networks of gait, minutes on one CPU core, no download.

    python train.py --config configs/gait.py --workdir runs/gait
    python train.py --config configs/gait.py:table --workdir runs/gait_table
    python train.py --config configs/gait.py:gaitset --workdir runs/gait_gaitset
    python train.py --config configs/gait.py:gaitbase --workdir runs/gait_gaitbase
    python eval.py --model runs/gait

All networks train by one recipe here, that of the small SwinGait. The first start
renders the data set into data/synthetic_walkers. Results, and how the networks compare:
docs/gait.md.
"""

from ml_collections import ConfigDict

from kprpe_jax.backbones import gaitbase, gaitset, swin_gait
from kprpe_jax.configs import gait3d
from kprpe_jax.configs.base import set_evaluators

NUM_TRAINED = 100
PRESETS = {"gaitset": gaitset.PRESETS, "gaitbase": gaitbase.PRESETS}


def get_config(network: str = "kprpe") -> ConfigDict:
    """Configure a run of one of `gait3d.NETWORKS`."""
    config = gait3d.get_config(network)
    config.steps = 300

    config.data.name = "synthetic_walkers"
    config.data.batch_size = 32  # 8 people x 4
    config.data.num_classes = NUM_TRAINED
    config.data.num_frames = 6
    config.data.skip_frames = 2
    config.data.num_workers = 0
    # What the data set is made of, as the options of `kprpe-jax synthesize walkers`.
    config.data.builder = ConfigDict()
    config.data.builder.num_identities = NUM_TRAINED
    config.data.builder.num_test_identities = 100
    config.data.builder.sequences_per_identity = 6
    config.data.builder.num_frames = 16
    config.data.builder.seed = 0
    config.data.builder.difficulty = 1.0
    config.data.builder.size = 32

    # The sequences differ enough; only the mirror image is missing.
    config.augmentation.flip_prob = 0.5
    config.augmentation.rotation_prob = 0.0

    config.model.update(PRESETS.get(network, swin_gait.PRESETS)["tiny"])
    config.model.image_size = (32, 22)
    if network in swin_gait.POSITIONS:
        config.model.width = 24
        config.model.drop_path_rate = 0.0
    config.model.dtype = "float32"

    config.optimizer.name = "adamw"
    config.optimizer.schedule = "sgdr"
    config.optimizer.boundaries = ()
    config.optimizer.weight_decay = 2e-2
    config.optimizer.learning_rate = 2e-3
    config.optimizer.end_learning_rate = 1e-6
    config.optimizer.warmup = 30.0
    config.optimizer.clip_norm = 1.0
    # Position parameters learn faster: a short run would starve them (decision 003).
    config.optimizer.position_factor = 10.0

    config.evals.every_steps = 150
    config.evals.batch_size = 32
    set_evaluators(config, gait3d.gait_evaluators((0.25, 0.5), lengths=(16,)))
    config.checkpoint.every_steps = 150
    config.log.every_steps = 50
    return config
