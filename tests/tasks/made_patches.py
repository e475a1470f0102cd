"""A small data set of patch maps: noise around a pattern per person."""

import functools
import tempfile

import numpy as np
from ml_collections import ConfigDict

from kprpe_jax.configs import pair_matching
from kprpe_jax.data.features import write_features

PEOPLE, PHOTOS, COUNT, WIDTH, D = 12, 4, 6, 8, 5


def rows(rng):
    """Patches that tell the person, embeddings that tell nothing."""
    photo = 0
    for person in range(PEOPLE):
        pattern = rng.normal(size=(COUNT, WIDTH))
        for _ in range(PHOTOS):
            patches = pattern + 0.3 * rng.normal(size=(COUNT, WIDTH))
            yield {
                "patches": patches.astype(np.float16),
                "embedding": rng.normal(size=D).astype(np.float32),
                "label": np.int32(person),
                "photo": np.int32(photo),
            }
            photo += 1


@functools.cache
def _data() -> tempfile.TemporaryDirectory:
    folder = tempfile.TemporaryDirectory(prefix="kprpe_jax_patches_")
    write_features(
        {"clean": rows(np.random.default_rng(0))},
        name="made",
        data_dir=folder.name,
        shapes={"patches": (COUNT, WIDTH), "embedding": (D,)},
        origin={"recognizer": "none", "fingerprint": "f" * 64},
    )
    return folder  # removed when the interpreter ends


def data_dir() -> str:
    """Write the patches, once per session; not to be changed."""
    return _data().name


def make_config(network: str = "h2l", **extra) -> ConfigDict:
    """The config of LFW on these patches, with a network that trains in seconds."""
    config = pair_matching.get_config(network)
    small = {
        "steps": 4,
        "data.dir": data_dir(),
        "data.name": "made",
        "data.train_identities": (0, 8),
        "data.num_classes": 8,
        "data.batch_size": 16,
        "model.num_heads": 1,
        "model.head_dim": 8,
        "model.mlp_dim": 16,
        "model.width": WIDTH,
        "model.num_patches": COUNT,
        "model.output_dim": 16,
        "model.dropout_rate": 0.0,
        "optimizer.warmup": 1.0,
        "log.every_steps": 20,
        "checkpoint.every_steps": 1000,
        "evals.in_training": (),
        "evals.pairs.identities": (8, 12),
        "evals.pairs.count": 100,
        "evals.batch_size": 24,
    }
    config.update_from_flattened_dict({**small, **extra})
    return config.lock()


def batch_of(task, size=16) -> dict[str, np.ndarray]:
    """The first pairs that training reads."""
    source, order = task.open_training(0)
    found = source.__getitems__([int(order[i]) for i in range(size)])
    return {key: np.stack([row[key] for row in found]) for key in found[0]}
