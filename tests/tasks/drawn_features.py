"""A small data set of features and its images: random networks, drawn people."""

import functools
import tempfile

import numpy as np
from ml_collections import ConfigDict

from kprpe_jax.configs import set_fusion
from kprpe_jax.data.face_features import write_features

PEOPLE, PHOTOS, COPIES, D, CHANNELS = 10, 4, 4, 8, 3


def rows(rng):
    """Embeddings around a center per person, their noise told by the statistics."""
    centers = rng.normal(size=(PEOPLE, D))
    clean, degraded = [], []
    for person in range(PEOPLE):
        for _ in range(PHOTOS):
            photo = np.int32(len(clean))

            def row(noise, person=person, photo=photo):
                statistics = rng.normal(0, 0.1, (CHANNELS, 2)) + noise
                return {
                    "embedding": np.float32(
                        centers[person] + noise * rng.normal(size=D)
                    ),
                    "statistics": np.float32(statistics),
                    "label": np.int32(person),
                    "photo": photo,
                }

            clean.append(row(0.1))
            degraded += [row(noise) for noise in rng.choice([0.3, 4.0], COPIES)]
    return {"clean": clean, "degraded": degraded}


@functools.cache
def _data() -> tempfile.TemporaryDirectory:
    folder = tempfile.TemporaryDirectory(prefix="kprpe_jax_features_")
    drawn = rows(np.random.default_rng(0))
    write_features(
        drawn, name="drawn", data_dir=folder.name, sizes=(D, CHANNELS), origin={}
    )
    return folder  # removed when the interpreter ends


def data_dir() -> str:
    """Write the features, once per session; not to be changed."""
    return _data().name


def make_config(method: str = "cluster_aggregate", **extra) -> ConfigDict:
    """The config of LFW on these features, with a network that trains in seconds."""
    config = set_fusion.get_config(method)
    small = {
        "steps": 4,
        "data.dir": data_dir(),
        "data.features": "drawn",
        "data.train_identities": (0, 8),
        "data.images_per_set": 4,
        "data.padded_sizes": (4,),
        "data.batch_size": 8 * 8,
        "fusion.num_clusters": 2,
        "fusion.style_dim": 4,
        "fusion.norm_dim": 4,
        "fusion.depth": 1,
        "fusion.num_heads": 2,
        "fusion.mixer_depth": 1,
        "optimizer.boundaries": (3,),
        "log.every_steps": 1,
        "evals.features": "drawn",
        "evals.identities": (8, 10),
        "evals.sizes": (1, 4),
        "evals.repeats": 4,
        "evals.in_training": (),
        "evals.every_steps": 4,
    }
    config.update_from_flattened_dict({**small, **extra})
    return config.lock()


def batch_of(task) -> dict[str, np.ndarray]:
    """The first rows that training reads."""
    source, order = task.open_training(0)
    found = source.__getitems__([int(order[i]) for i in range(64)])
    return {key: np.stack([row[key] for row in found]) for key in found[0]}
