"""Digits as identities: margin softmax over class centers sharded on the mesh.

Small enough to test the recognition task anywhere; faces follow the same config.

    python train.py --config configs/digits_recognition.py --workdir runs/recognition
"""

from ml_collections import ConfigDict

from kprpe_jax.configs import digits
from kprpe_jax.configs.base import margin_loss_fields


def get_config(position: str = "kprpe_multihead") -> ConfigDict:
    """Configure a run with one of the encodings of `kprpe_jax.position.encoding`."""
    config = digits.get_config(position)
    config.task = "recognition"
    config.loss = margin_loss_fields()
    return config
