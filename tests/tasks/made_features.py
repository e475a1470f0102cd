"""A small data set of features: noise around a center per person."""

import functools
import tempfile

import numpy as np
from ml_collections import ConfigDict

from kprpe_jax.configs import set_fusion
from kprpe_jax.data.features import write_features

PEOPLE, PHOTOS, COPIES, D, CHANNELS = 10, 4, 4, 8, 3
ABOUT = {"recognizer": "none", "fingerprint": "f" * 64, "input_spec": "none"}


def rows(rng):
    """Embeddings around a center per person, their noise told by the style."""
    centers = rng.normal(size=(PEOPLE, D))
    clean, degraded = [], []
    for person in range(PEOPLE):
        for _ in range(PHOTOS):
            photo = np.int32(len(clean))

            def row(noise, person=person, photo=photo):
                style = rng.normal(0, 0.1, (CHANNELS, 2)) + noise
                return {
                    "embedding": np.float32(
                        centers[person] + noise * rng.normal(size=D)
                    ),
                    "style": np.float32(style),
                    "label": np.int32(person),
                    "photo": photo,
                }

            clean.append(row(0.1))
            degraded += [row(noise) for noise in rng.choice([0.3, 4.0], COPIES)]
    return {"clean": clean, "degraded": degraded}


@functools.cache
def _data() -> tempfile.TemporaryDirectory:
    folder = tempfile.TemporaryDirectory(prefix="kprpe_jax_features_")
    write_features(
        rows(np.random.default_rng(0)),
        name="made",
        data_dir=folder.name,
        shapes={"embedding": (D,), "style": (CHANNELS, 2)},
        origin=ABOUT,
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
        "data.features": "made",
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
        "evals.probes.features": "made",
        "evals.probes.identities": (8, 10),
        "evals.probes.sizes": (1, 4),
        "evals.probes.repeats": 4,
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
