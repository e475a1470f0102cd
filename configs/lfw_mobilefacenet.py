"""MobileFaceNet with published weights on LFW's 6,000 pairs; nothing is trained.

ARCHIVE, POINTS as in configs/lfw.py; PAIRS is the official pairs.txt, WEIGHTS those of
Xiaoccer/MobileFaceNet_Pytorch.

python -m experiments lfw --archive ARCHIVE --pairs PAIRS --weights WEIGHTS

or, step by step,

kprpe-jax import tar --source ARCHIVE --name lfw \\
    --pairs PAIRS --data-dir data
kprpe-jax eval --model mobilefacenet:WEIGHTS --config lfw_mobilefacenet
"""

from ml_collections import ConfigDict

from kprpe_jax.configs import lfw
from kprpe_jax.configs.base import set_evaluators


def get_config() -> ConfigDict:
    """Configure the evaluation."""
    config = lfw.get_config()
    config.backbone = "mobilefacenet"
    del config.model
    config.model = ConfigDict()
    config.model.image_size = (112, 96)  # the middle columns
    config.model.output_dim = 128
    config.model.dtype = "float32"
    # The contract of the published weights.
    config.input = ConfigDict(dict(scale=128.0))
    # The mirror images as those who published the weights do.
    lfw_pairs = dict(type="official_pairs", dataset="lfw", mirror="concatenate")
    set_evaluators(config, {"lfw": lfw_pairs})
    config.evals.in_training = ()
    config.checkpoint.best_metric = ""
    config.evals.batch_size = 64
    return config
