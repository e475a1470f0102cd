"""CAFace on the features of synthetic people in video frames.

python -m experiments synthetic_sequences --model mobilefacenet:WEIGHTS
python train.py --config configs/set_fusion_sequences.py --workdir runs/sequences
"""

from ml_collections import ConfigDict

from kprpe_jax.configs import set_fusion


def get_config(method: str = "cluster_aggregate") -> ConfigDict:
    """Configure a run of CAFace, ProxyFusion, or one of `fusion.weighted.METHODS`."""
    config = set_fusion.get_config(method)
    config.data.features = "sequences_train"
    config.evals.probes.features = "sequences_probes"
    config.evals.probes.repeats = 4
    return config
