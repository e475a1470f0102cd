"""Two-image transformers on synthetic faces, patches learned: no download, no weights.

500 people to train, 100 others to verify; the first start renders them.

python train.py --config configs/pair_matching_faces.py --workdir runs/faces_h2l
python train.py --config configs/pair_matching_faces.py:v --workdir runs/faces_v
python eval.py --model runs/faces_h2l
"""

from ml_collections import ConfigDict

from kprpe_jax.configs import pair_matching, synthetic_faces
from kprpe_jax.configs.base import check_argument


def get_config(network: str = "h2l") -> ConfigDict:
    """Configure a run of v, h2 or h2l on learned patches."""
    check_argument(network, ("v", "h2", "h2l"))  # h1 is v without a CNN
    config = pair_matching.get_config(network)
    pair_matching.learn_patches(config)
    faces = synthetic_faces.get_config().data
    config.data.name = faces.name
    config.data.builder = faces.builder
    config.data.num_classes = faces.num_classes
    config.data.train_identities = ()
    config.evals.pairs.split = "test"
    config.evals.pairs.identities = ()
    config.evals.pairs.count = 2000
    return config
