"""CAFace as the paper trains it: 10,000 people of WebFace4M behind an IResNet-101.

Follows the paper (Supp. A) and the official code. Not run: it needs WebFace4M and the
published weights.

kprpe-jax embed --model iresnet_insightface_ir101:WEIGHTS --dataset webface4m \\
    --name webface4m_features --style --mirror sum --identities 0:10000 --degraded 16
python train.py --config configs/set_fusion_webface4m.py --workdir runs/caface
"""

from ml_collections import ConfigDict

from kprpe_jax.configs import set_fusion

EPOCH = 813_482 // 512  # steps: every image is the first of a set once


def get_config(method: str = "cluster_aggregate") -> ConfigDict:
    """Configure a run of CAFace, ProxyFusion, or one of `fusion.weighted.METHODS`."""
    config = set_fusion.get_config(method)
    config.steps = 10 * EPOCH
    config.data.features = "webface4m_features"
    config.data.in_memory = False
    config.data.padded_sizes = (4, 8, 16)
    config.data.batch_size = 512 * 2 * 16  # 512 people, two sets, 16 images in each
    config.data.num_threads = 16
    config.backbone = "iresnet_insightface_ir101"
    config.optimizer.boundaries = (6 * EPOCH, 9 * EPOCH)
    config.log.every_steps = 100
    config.checkpoint.every_steps = EPOCH
    config.evals.every_steps = EPOCH
    config.evals.probes.features = "webface4m_probes"
    config.evals.probes.sizes = (4, 16, 64)
    return config
