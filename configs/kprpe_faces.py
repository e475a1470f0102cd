"""KP-RPE's training recipe for faces (Table 6 of the paper), for a pod or GPUs.

    kprpe-jax import insightface_rec --source FOLDER \\
        --name webface4m --data-dir data --detector retinaface_mnet025:FILE
    python train.py --config configs/kprpe_faces.py:webface4m --workdir runs/4m \\
        --config.mesh.data=-1 --config.mesh.class=8

`ms1mv2` is the ablation (ViT-S, 34 epochs); `ms1mv3`, `webface4m` and `webface12m` are
the large-scale runs (36 epochs). The paper's ViT "Large" is its ViT-B, see
`backbones.vit.PRESETS`. Import the five verification sets (insightface_bin, with
the detector) under the names below to follow the accuracy while it trains. These
were not run here: the data are not free, and they take many accelerators.
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from kprpe_jax.backbones.vit import PRESETS
from kprpe_jax.configs import lfw
from kprpe_jax.configs.base import check_argument, set_evaluators


class TrainingSet(NamedTuple):
    """A published training set.

    Attributes:
      images, identities: as published with the set.
      large_scale: which column of Table 6.
      sample_rate: PartialFC; the text (Sec. 4.1) has it for WebFace only.
    """

    images: int
    identities: int
    large_scale: bool
    sample_rate: float


TRAINING_SETS = {
    "ms1mv2": TrainingSet(5_822_653, 85_742, False, 1.0),
    "ms1mv3": TrainingSet(5_179_510, 93_431, True, 1.0),
    "webface4m": TrainingSet(4_235_242, 205_990, True, 0.6),
    "webface12m": TrainingSet(12_720_066, 617_970, True, 0.6),
}
VERIFICATION = ("lfw", "cfp_fp", "agedb_30", "calfw", "cplfw")


def get_config(name: str = "webface4m") -> ConfigDict:
    """Configure a run on one of TRAINING_SETS."""
    check_argument(name, TRAINING_SETS)
    data = TRAINING_SETS[name]
    config = lfw.get_config("kprpe_multihead")

    config.data.name = name
    config.data.num_classes = data.identities
    config.data.train_identities = ()
    config.data.batch_size = 1024 if data.large_scale else 512
    config.data.repeat_probability = 0.1 if data.large_scale else 0.5
    config.data.num_workers = 8
    epochs = 36 if data.large_scale else 34
    config.steps = epochs * data.images // config.data.batch_size

    config.model.update(PRESETS["base" if data.large_scale else "small"])
    config.model.position_options.scale_bias = False  # the official code's
    config.model.scan = True
    config.model.dtype = "bfloat16"

    config.loss.margin_kind = "adaface"
    config.loss.margin = 0.4
    config.loss.scale = 64.0
    config.loss.sample_rate = data.sample_rate

    config.optimizer.learning_rate = 1e-4 if data.large_scale else 1e-3
    config.optimizer.clip_norm = 0.0  # Table 6 names none
    config.optimizer.schedule_unit = "epochs"
    config.optimizer.warmup = 3.0

    # No pairs can be sampled: training sees everybody.
    official = dict(type="official_pairs")
    set_evaluators(
        config, {name: {**official, "dataset": name} for name in VERIFICATION}
    )
    config.evals.in_training = ("cfp_fp", "agedb_30")
    config.evals.batch_size = 1024
    config.evals.every_steps = config.steps // epochs
    config.checkpoint.every_steps = 2000
    config.checkpoint.best_metric = "cfp_fp/accuracy"
    config.log.every_steps = 100
    return config
