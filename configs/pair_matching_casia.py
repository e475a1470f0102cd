"""Face-ViT's own training: H2L over a frozen ResNet-18 on CASIA-WebFace.

Source: Face-ViT, Sec. 4.3 and 5.3.1, and for what the thesis leaves out its code. ROOT
is a folder per person of aligned faces of 128 x 128, WEIGHTS the gray ArcFace network:

kprpe-jax import folder --source ROOT --name casia
python train.py --config configs/pair_matching_casia.py --workdir runs/casia_h2l \\
    --config.backbone_weights=WEIGHTS
"""

from ml_collections import ConfigDict

from kprpe_jax.configs import pair_matching
from kprpe_jax.configs.base import check_argument

PAIRS, BATCH, EPOCHS = 2_000_000, 320, 50


def get_config(network: str = "h2l") -> ConfigDict:
    """Configure a run of h1, h2 or h2l; depth 1, 4 heads."""
    check_argument(network, ("h1", "h2", "h2l"))  # v learns patches, not over a CNN
    config = pair_matching.get_config(network)
    epoch = PAIRS // BATCH
    config.steps = EPOCHS * epoch
    config.data.name = "casia"
    pair_matching.read_images(config)
    config.data.image_shape = (128, 128, 3)
    config.data.num_classes = 10_575
    config.data.train_identities = ()
    config.data.batch_size = BATCH  # the thesis counts images, its code pairs
    config.data.num_threads = 8
    config.backbone = "deepface_emd_arcface"

    config.model.num_heads = 4
    config.model.mlp_dim = 2048
    config.model.num_patches = 64
    config.model.output_dim = 512
    config.model.attention = "norm"  # Eq. 4.2; the code has residual

    # 1e-6 in the first epoch, then 1e-5.
    config.optimizer.learning_rate = 1e-6
    config.optimizer.schedule = "step"
    config.optimizer.warmup = 0.0
    config.optimizer.boundaries = (epoch,)
    config.optimizer.step_factor = 10.0
    config.optimizer.clip_norm = 0.0

    config.checkpoint.every_steps = epoch
    config.log.every_steps = 500
    config.evals.every_steps = epoch
    config.evals.pairs.dataset = "lfw"  # aligned to 128 x 128
    config.evals.pairs.identities = ()
    config.evals.pairs.count = 6000
    return config
