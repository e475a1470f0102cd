"""Fine-tune a published recognizer on half of LFW's people; the other half verifies.

    kprpe-jax train --config fine_tune:mobilefacenet --workdir runs/tuned \\
        --config.model.weights=mobilefacenet:WEIGHTS

The import is that of configs/lfw.py; its photos are 112 x 112, so the network must read
these, or their middle columns. Architecture and input contract are those of the
published network. First only the new class centers learn at the full rate: the network
learns at a tenth of it. docs/fine_tuning.md.
"""

import dataclasses

import jax.numpy as jnp
from ml_collections import ConfigDict

from kprpe_jax import registry
from kprpe_jax.backbones.description import class_path
from kprpe_jax.configs import lfw_small
from kprpe_jax.configs.base import check_argument


def get_config(name: str = "mobilefacenet") -> ConfigDict:
    """Configure a run with the network of a published recognizer."""
    recognizers = [n for n, x in registry.NETWORKS.items() if x.kind == "recognizer"]
    check_argument(name, recognizers)
    published = registry.network(name)
    module = published.make()
    (config_name,) = (
        key for key, path in registry.BACKBONES.items() if path == class_path(module)
    )
    config = lfw_small.get_config("absolute")
    config.backbone = config_name
    del config.model
    fields = {
        field.name: getattr(module, field.name)
        for field in dataclasses.fields(module)
        if field.name not in ("name", "parent", "sharding")
    }
    config.model = ConfigDict(fields | dict(dtype=jnp.dtype(module.dtype).name))
    config.model.weights = ""  # name:FILE
    config.model.freeze = ()
    spec = published.input_spec
    config.input = ConfigDict(dict(color=spec.color, mean=spec.mean, scale=spec.scale))

    config.steps = 200
    config.optimizer.learning_rate = 1e-3
    config.optimizer.learning_rate_factors = (("^backbone/", 0.1),)
    config.optimizer.warmup = 20.0
    config.optimizer.position_factor = 1.0
    config.evals.every_steps = 100
    return config
