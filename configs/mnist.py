"""MNIST moved about on a 40 x 40 canvas, in the setting of KP-RPE, Fig. 1.

FOLDER holds the four IDX files.

kprpe-jax import idx --source FOLDER --name mnist
python train.py --config configs/mnist.py:absolute --workdir runs/mnist-absolute
"""

from ml_collections import ConfigDict

from kprpe_jax.configs import digits
from kprpe_jax.configs.base import change_evaluators


def get_config(position: str = "kprpe_multihead") -> ConfigDict:
    """Configure a run with one of the encodings of `kprpe_jax.position.encoding`."""
    config = digits.get_config(position)
    config.steps = 1000
    config.data.name = "mnist"
    config.data.batch_size = 128
    config.optimizer.warmup = 100.0
    config.optimizer.learning_rate = 2e-3
    config.evals.every_steps = 250
    change_evaluators(config, repeats=1)
    return config
