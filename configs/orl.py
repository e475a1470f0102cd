"""ORL: 30 of its 40 people to train, the other ten to verify, aligned and misaligned.

ORL is a folder of photos, s1/1.pgm and so on; WEIGHTS are RetinaFace's.

kprpe-jax align --photos ORL --output orl_aligned \\
    --detector retinaface_mnet025:WEIGHTS
kprpe-jax import folder --source orl_aligned/aligned \\
    --name orl_aligned --landmarks orl_aligned/aligned_landmarks.csv
python -m experiments encodings --config configs/orl.py \\
    --positions absolute,irpe,kprpe_multihead --output reports/orl

300 photos are next to nothing: what is learned beyond them is augmentation.
"""

from ml_collections import ConfigDict

from kprpe_jax.configs import lfw_small
from kprpe_jax.configs.base import change_evaluators

NUM_TRAINED = 30  # of 40 people
HELD_OUT = dict(split="train", identities=(NUM_TRAINED, 40), pairs=800)


def get_config(position: str = "kprpe_multihead") -> ConfigDict:
    """Configure a run with one of the encodings of `kprpe_jax.position.encoding`."""
    config = lfw_small.get_config(position)
    config.steps = 200
    config.data.name = "orl_aligned"
    config.data.num_classes = NUM_TRAINED
    config.data.train_identities = (0, NUM_TRAINED)
    change_evaluators(config, **HELD_OUT)
    config.evals.every_steps = 100
    config.checkpoint.every_steps = 200
    return config
