"""Two-image transformers on drawn faces, patches learned: no download, no weights.

500 people to train, 100 others to verify; the first start draws them.

python train.py --config configs/pair_matching_faces.py --workdir runs/drawn_h2l
python train.py --config configs/pair_matching_faces.py:v --workdir runs/drawn_v
python eval.py --config configs/pair_matching_faces.py --workdir runs/drawn_h2l
"""

from ml_collections import ConfigDict

from configs import pair_matching, synthetic_faces


def get_config(network: str = "h2l") -> ConfigDict:
    """Configure a run of v, h2 or h2l on learned patches."""
    config = pair_matching.get_config("h1" if network == "v" else network)
    config.steps = 600
    drawn = synthetic_faces.get_config().data
    config.data.name = drawn.name
    config.data.builder = drawn.builder
    config.data.num_classes = drawn.num_classes
    config.data.train_identities = ()
    config.data.input = "images"
    config.data.in_memory = False
    config.data.batch_size = 32  # pairs
    config.augmentation.changes = ConfigDict(dict(spatial=dict(flip_prob=0.5)))

    config.model.window_size = config.model.window_stride = 16
    config.model.num_patches = 49
    config.model.width = 64
    config.model.depth = 4
    config.model.output_dim = 128
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup = 100.0

    config.evals.split = "test"
    config.evals.identities = ()
    config.evals.pairs = 2000
    config.evals.every_steps = 300
    config.checkpoint.every_steps = 300
    return config
