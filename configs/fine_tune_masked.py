"""Fine-tune a published recognizer with masked faces, as Table 5.8 of the thesis does.

    kprpe-jax train --config fine_tune_masked:mobilefacenet --workdir runs/masked \\
        --config.model.weights=mobilefacenet:WEIGHTS

Source: DeepFace-EMD and Face-ViT, Sec. 5.2.2: 415 of 907 thousand images wear a mask;
SGD, learning rate 0.001, weight decay 5e-4, 12 epochs, ArcFace with margin 0.5 and
scale 30. Ours: people of LFW in place of CASIA-WebFace, masks that are rendered anew
each time in place of stored ones, momentum 0.9. Held-out people are identified plain
and masked, among plain photos.
"""

from ml_collections import ConfigDict

from kprpe_jax.configs import fine_tune, lfw
from kprpe_jax.configs.base import set_evaluators

IMAGES = 6364  # of the people that are trained
EPOCHS = 12


def get_config(name: str = "mobilefacenet") -> ConfigDict:
    """Configure a run with the network of a published recognizer."""
    config = fine_tune.get_config(name)
    config.augmentation.preset = "none"
    config.augmentation.changes = dict(spatial=dict(flip_prob=0.5))
    config.augmentation.mask_prob = 0.457
    config.steps = EPOCHS * IMAGES // config.data.batch_size

    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.learning_rate_factors = ()
    config.optimizer.schedule = "constant"
    config.optimizer.warmup = 0.0
    config.optimizer.weight_decay = 5e-4
    config.optimizer.clip_norm = 0.0
    config.loss.margin_kind = "arcface"
    config.loss.margin = 0.5
    config.loss.scale = 30.0

    held_out = dict(split="train", identities=lfw.HELD_OUT["identities"])
    fields = dict(type="identification", **held_out)
    masked = dict(fields, queries="mask")
    set_evaluators(config, dict(identify=fields, identify_mask=masked))
    config.evals.in_training = ()
    config.checkpoint.best_metric = ""
    return config
