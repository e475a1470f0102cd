"""`make faces-demo`: synthetic faces, the recipe of KP-RPE, verified under distortion.

python -m experiments encodings --config configs/faces_demo.py \\
    --positions absolute,kprpe_multihead --output reports/faces
"""

from ml_collections import ConfigDict

from kprpe_jax.configs import synthetic_faces
from kprpe_jax.configs.base import set_evaluators, verification_evaluators


def get_config(position: str = "kprpe_multihead") -> ConfigDict:
    """Configure a run with one of the encodings of `kprpe_jax.position.encoding`."""
    config = synthetic_faces.get_config(position)
    # The geometric part of the paper's augmentation (Table 6).
    config.augmentation.changes = dict(
        spatial=dict(
            flip_prob=0.5, rotation_prob=0.2, scale_prob=1.0, translation_prob=1.0
        )
    )
    config.model.position_options.anchor_width = 0.07  # decision 004
    config.optimizer.position_factor = 10.0  # as in short runs on digits, decision 003
    held_out = dict(split="test", pairs=2000)
    entries = verification_evaluators(
        (0.25, 0.5, 0.75, 1.0, 1.5), (0.0, 0.1), **held_out
    )
    entries["partly_aligned"] = dict(
        type="partly_aligned",
        dataset="synthetic_faces",
        shares=(0.0, 0.5, 1.0),
        **held_out,
    )
    set_evaluators(config, entries)
    return config
