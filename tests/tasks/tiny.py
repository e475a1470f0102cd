"""The real configs on the real digits, with networks that train in seconds."""

import functools
import tempfile

import jax
import numpy as np
from ml_collections import ConfigDict

from kprpe_jax.configs import digits, digits_recognition
from kprpe_jax.core import mesh as mesh_lib
from kprpe_jax.data.prepare import prepare

CONFIGS = {
    "classification": digits.get_config,
    "recognition": digits_recognition.get_config,
}
# Everything that costs time or that someone may tune, so that no test depends on it.
SMALL = {
    "steps": 4,
    "data.batch_size": 16,
    "data.num_threads": 1,
    "model.patch_size": 8,
    "model.width": 16,
    "model.depth": 1,
    "model.num_heads": 2,
    "model.output_dim": 16,
    "model.mlp_ratio": 2.0,
    "model.drop_path_rate": 0.0,
    "model.mask_ratio": 0.0,
    "model.position": "kprpe_multihead",
    "model.absolute": True,
    "model.position_options.num_keypoints": 5,
    "model.position_options.per_layer": True,
    "model.pool": "flatten",
    "model.scan": True,
    "model.dtype": "float32",
    "optimizer.learning_rate": 1e-3,
    "optimizer.warmup": 0.0,
    "optimizer.clip_norm": 1.0,
    "optimizer.schedule": "cosine",
    "optimizer.accumulate_steps": 1,
    "evals.batch_size": 256,
    **{
        f"evals.{name}.repeats": 1
        for name in (
            "clean",
            "affine",
            "affine_box",
            "affine_swapped",
            "sweep",
            "noise",
        )
    },
    "evals.in_training": (),
    "checkpoint.best_metric": "",
    "log.every_steps": 1,
}


@functools.cache
def _data() -> tempfile.TemporaryDirectory:
    folder = tempfile.TemporaryDirectory(prefix="kprpe_jax_digits_")
    prepare("digits", folder.name)
    return folder  # removed when the interpreter ends


def data_dir() -> str:
    """Prepare the digits, once per session; not to be changed."""
    return _data().name


def overrides(**extra) -> dict:
    return {**SMALL, "data.dir": data_dir(), **extra}


def make_config(kind: str = "classification", **extra) -> ConfigDict:
    """Build a small config; `extra` are {"section.field": value}."""
    config = CONFIGS[kind]()
    config.update_from_flattened_dict(overrides(**extra))
    return config.lock()


def arguments(**extra) -> list[str]:
    """Write the same overrides for the command line."""
    return [f"--config.{name}={value}" for name, value in overrides(**extra).items()]


def one_device() -> jax.sharding.Mesh:
    return mesh_lib.make_mesh({"data": 1, "fsdp": 1, "class": 1}, jax.devices()[:1])


def batch_of(source, rows) -> dict[str, np.ndarray]:
    """Stack rows of a source, as the loader does."""
    rows = source.__getitems__(rows)
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}
