"""SwinGait-2D with KP-RPE on Gait3D: the recipe of KP-RPE, Sec. 5, for GPUs or a pod.

    kprpe-jax import gait --source Gait3D-sils-64-44-pkl \\
        --joints Gait3D-pose --partition Gait3D.json --name gait3d
    python train.py --config configs/gait3d.py --workdir runs/gait3d
    python train.py --config configs/gait3d.py:table --workdir runs/gait3d_table

The paper states 60,000 iterations of 32 people x 4 sequences, AdamW with 3e-4 and
weight decay 2e-2, and SGDR. It does not give SGDR's periods: the official code has one,
as long as the run, and goes down to 1e-6 (`optimizer.boundaries` would be restarts).
The rest is the official SwinGait configuration, but for three things: that one starts
from another trained network, whose convolutions and heads then learn ten times more
slowly than the transformer; it also augments by changes of perspective; and it steps
the learning rate every 1,000 iterations only. Not run here: Gait3D is
given out on request.
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


def gait_evaluators(
    severities: Sequence[float], *, lengths: tuple[int, ...]
) -> dict[str, dict[str, Any]]:
    """Evaluators: aligned, misaligned, and with wrong, missing and swapped joints.

    Args:
      severities: of `misaligned_S`.
      lengths: frames, to the next of which a sequence is padded.
    Returns: entries of `config.evals`.
    """
    fields = dict(type="gait_search", split="test", lengths=lengths, metric="euclidean")
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


def get_config(position: str = "kprpe") -> ConfigDict:
    """Configure a run with position `table` (Swin's own) or `kprpe`."""
    check_argument(position, POSITIONS)
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

    config.model = ConfigDict()  # fields of backbones.swin_gait.SwinGait
    config.model.image_size = (64, 44)
    config.model.channels = (64, 128)
    config.model.stem_depths = (1, 4)
    config.model.map_size = (30, 20)
    config.model.width = 256
    config.model.depths = (4, 2)
    config.model.num_heads = (16, 32)
    config.model.window = (3, 5)
    config.model.bins = (15,)
    config.model.part_dim = 256
    config.model.position = position
    config.model.position_options = ConfigDict()
    config.model.position_options.mesh = "window"
    config.model.drop_path_rate = 0.1
    config.model.mask_padding = True
    config.model.dtype = "bfloat16"

    config.loss = ConfigDict()
    config.loss.triplet = "batch_all"
    config.loss.triplet_weight = 1.0
    config.loss.margin = 0.2
    config.loss.scale = 16.0  # of the class cosines

    config.optimizer.learning_rate = 3e-4
    config.optimizer.end_learning_rate = 1e-6
    config.optimizer.schedule = "sgdr"
    config.optimizer.boundaries = ()  # where SGDR starts again
    config.optimizer.weight_decay = 2e-2

    config.checkpoint.every_steps = 2000
    config.checkpoint.best_metric = "aligned/rank_1"

    config.log.every_steps = 100

    config.evals = ConfigDict()
    config.evals.every_steps = 10_000
    config.evals.in_training = ("aligned",)
    config.evals.batch_size = 64  # sequences
    set_evaluators(config, gait_evaluators((0.5, 1.0), lengths=(64, 128, 256)))
    return config
