"""SwinGait-2D with KP-RPE on Gait3D: the recipe of KP-RPE, Sec. 5, for GPUs or a pod.

    kprpe-jax import gait --source Gait3D-sils-64-44-pkl \\
        --joints Gait3D-pose --partition Gait3D.json --name gait3d
    python train.py --config configs/gait3d.py --workdir runs/gait3d
    python train.py --config configs/gait3d.py:table --workdir runs/gait3d_table
    python train.py --config configs/gait3d.py:gaitset --workdir runs/gait3d_gaitset
    python train.py --config configs/gait3d.py:gaitbase --workdir runs/gait3d_gaitbase

The paper states 60,000 iterations of 32 people x 4 sequences, AdamW with 3e-4 and
weight decay 2e-2, and SGDR. It does not give SGDR's periods: the official code has one,
as long as the run, and goes down to 1e-6 (`optimizer.boundaries` would be restarts).
The rest is the official SwinGait configuration, but for three things: that one starts
from another trained network, whose convolutions and heads then learn ten times more
slowly than the transformer; it also augments by changes of perspective; and it steps
the learning rate every 1,000 iterations only.

The baselines of Table 5 have their own official recipes: GaitSet that of the Gait3D
benchmark (triplets alone, Adam 1e-3 for 180,000 iterations; its weight decay of 5e-4 is
a part of the gradient there, decoupled here), GaitBase that of OpenGait (SGD 0.1 for
60,000; it samples 10 to 50 frames a clip, here 30). Not run here: Gait3D is given out
on request.
"""

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from kprpe_jax.backbones.swin_gait import POSITIONS
from kprpe_jax.configs.base import (
    check_argument,
    make_base,
    numbered,
    set_evaluators,
)

NETWORKS = (*POSITIONS, "gaitset", "gaitbase")


def gait_evaluators(
    severities: Sequence[float],
    *,
    lengths: tuple[int, ...],
    metric: str = "euclidean",
) -> dict[str, dict[str, Any]]:
    """Evaluators: aligned, misaligned, and with wrong, missing and swapped joints.

    Args:
      severities: of `misaligned_S`.
      lengths: frames, to the next of which a sequence is padded.
      metric: by which parts are compared.
    Returns: entries of `config.evals`.
    """
    fields = dict(type="gait_search", split="test", lengths=lengths, metric=metric)
    return {
        "aligned": fields,
        **{
            numbered(name, value): {**fields, field: value}
            for name, field, values in (
                ("misaligned", "severity", severities),
                ("noise", "alpha", (0.05, 0.1)),
                ("missing", "missing", (0.3, 1.0)),
            )
            for value in values
        },
        "swapped": {**fields, "swapped": True},
    }


def get_config(network: str = "kprpe") -> ConfigDict:
    """Configure a run of SwinGait with position `table` (Swin's own) or `kprpe`, or of
    one of the baselines `gaitset` and `gaitbase`.
    """
    check_argument(network, NETWORKS)
    config = make_base("gait", steps=60_000)

    config.data.name = "gait3d"
    config.data.batch_size = 128  # sequences: 32 people x 4
    config.data.sequences_per_identity = 4
    config.data.num_classes = 3000
    config.data.num_frames = 30  # of a clip
    config.data.skip_frames = 4
    config.data.num_workers = 8

    config.augmentation = ConfigDict()  # fields of augmentation.spatial.Spatial
    config.augmentation.flip_prob = 0.2
    config.augmentation.rotation_prob = 0.2
    config.augmentation.rotation_degrees = 10.0
    config.augmentation.scale_prob = 0.0
    config.augmentation.scale = (0.8, 1.2)
    config.augmentation.translation_prob = 0.0
    config.augmentation.translation = 0.1

    config.model = ConfigDict()  # fields of the network's class
    config.model.image_size = (64, 44)
    config.model.part_dim = 256
    config.model.dtype = "bfloat16"

    config.loss = ConfigDict()
    config.loss.triplet = "batch_all"
    config.loss.triplet_weight = 1.0
    config.loss.margin = 0.2
    config.loss.scale = 16.0  # of the class cosines

    _set_network(config, network)

    config.checkpoint.every_steps = 2000
    config.checkpoint.best_metric = "aligned/rank_1"

    config.log.every_steps = 100

    config.evals = ConfigDict()
    config.evals.every_steps = 10_000
    config.evals.in_training = ("aligned",)
    config.evals.batch_size = 64  # sequences
    metric = "cosine" if network == "gaitset" else "euclidean"
    evaluators = gait_evaluators((0.5, 1.0), lengths=(64, 128, 256), metric=metric)
    set_evaluators(config, evaluators)
    return config


def _set_network(config: ConfigDict, network: str) -> None:
    """The network's fields and its optimizer."""
    model, optimizer = config.model, config.optimizer
    if network == "gaitset":
        config.backbone = network
        config.steps = 180_000
        config.augmentation.flip_prob = config.augmentation.rotation_prob = 0.0
        model.channels = (32, 64, 128)
        model.bins = (16, 8, 4, 2, 1)
        optimizer.learning_rate = 1e-3
        optimizer.schedule, optimizer.boundaries = "step", (30_000, 90_000)
        optimizer.weight_decay = 5e-4
        return
    if network == "gaitbase":
        config.backbone = network
        model.channels = (64, 128, 256, 512)
        model.depths = (1, 1, 1, 1)
        model.strides = (1, 2, 2, 1)
        model.max_pool = False
        model.bins = (16,)
        optimizer.name = "sgd"
        optimizer.learning_rate = 0.1
        optimizer.schedule, optimizer.boundaries = "step", (20_000, 40_000, 50_000)
        optimizer.weight_decay = 5e-4
        return

    model.channels = (64, 128)
    model.stem_depths = (1, 4)
    model.map_size = (30, 20)
    model.width = 256
    model.depths = (4, 2)
    model.num_heads = (16, 32)
    model.window = (3, 5)
    model.bins = (15,)
    model.position = network
    model.position_options = ConfigDict({"mesh": "window"})
    model.drop_path_rate = 0.1
    model.mask_padding = True
    optimizer.learning_rate = 3e-4
    optimizer.end_learning_rate = 1e-6
    optimizer.schedule = "sgdr"
    optimizer.boundaries = ()  # where SGDR starts again
    optimizer.weight_decay = 2e-2
