"""Digits as identities: margin softmax over class centres sharded on the mesh.

Small enough to test the recognition task anywhere; faces follow the same config.

    python train.py --config configs/digits_recognition.py --workdir runs/recognition
"""

from ml_collections import ConfigDict

from configs import digits


def get_config(position: str = "kprpe_multihead") -> ConfigDict:
    """Configure a run with one of the encodings of `kprpe_jax.position.encoding`."""
    config = digits.get_config(position)
    config.task = "recognition"
    config.loss = ConfigDict()
    config.loss.margin_kind = "cosface"  # or arcface, adaface, cosine
    config.loss.margin = 0.35
    config.loss.scale = 30.0
    config.loss.margin_gradient = "exact"
    config.loss.sample_rate = 1.0  # of the class centres, each step
    config.loss.concentration = 0.333  # adaface
    config.loss.norm_momentum = 0.01  # adaface
    return config
