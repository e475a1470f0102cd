"""A small imported data set: patterns in place of faces, one pattern a person."""

import dataclasses
import functools
import tempfile
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from kprpe_jax.configs import lfw
from kprpe_jax.configs.base import set_evaluators, verification_evaluators
from kprpe_jax.data.importers.dataset import write_dataset
from kprpe_jax.data.importers.image_folder import open_image_folder
from kprpe_jax.data.importers.landmarks import read_landmarks

PEOPLE, IMAGES, SIZE = 12, 4, 32


def write_images(folder: Path) -> Path:
    """Write a folder per person and a table of five points; give the table's path."""
    rng = np.random.default_rng(0)
    lines = ["key," + ",".join(f"x{i},y{i}" for i in range(5))]
    for person in range(PEOPLE):
        pattern = rng.integers(0, 256, (4, 4, 3)).repeat(8, 0).repeat(8, 1)
        for index in range(IMAGES):
            noise = rng.normal(0, 20, pattern.shape)
            pixels = np.clip(pattern + noise, 0, 255).astype(np.uint8)
            path = folder / f"person{person:02d}" / f"{index}.jpg"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(path, quality=90)
            points = rng.random(10).round(3)
            key = f"{path.parent.name}/{path.name}"
            lines.append(",".join([key, *map(str, points)]))
    table = folder.parent / "points.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


@functools.cache
def _data() -> tempfile.TemporaryDirectory:
    folder = tempfile.TemporaryDirectory(prefix="kprpe_jax_people_")
    images = Path(folder.name, "images")
    images.mkdir()
    table = write_images(images)
    for name, tables in (("people", {}), ("gallery", {}), ("listed", official_pairs())):
        source = open_image_folder(images)
        source = dataclasses.replace(source, tables=tables)
        write_dataset(
            source,
            name=name,
            data_dir=Path(folder.name, "data"),
            origin={"kind": "folder"},
            landmarks=read_landmarks(table, units="fraction"),
        )
    return folder  # removed when the interpreter ends


def official_pairs() -> dict[str, np.ndarray]:
    """A list: first photos with second ones of the same and of another person."""
    keys = [
        (f"person{person:02d}/0.jpg", f"person{other:02d}/1.jpg")
        for person in range(PEOPLE)
        for other in (person, (person + 1) % PEOPLE)
    ]
    same = np.tile([True, False], PEOPLE)
    return {
        "pair_keys": np.array(keys, np.bytes_),
        "pair_same": same,
        "pair_folds": np.array(3),
    }


def data_dir() -> str:
    """Import the people, once a run of tests; not to be changed.

    The data sets `people`, `gallery` and `listed` hold the same photos; the last one
    has 24 official pairs in three folds.
    """
    return str(Path(_data().name, "data"))


HELD_OUT = dict(split="train", identities=(8, 12), pairs=40)


def make_config(evaluators=None, **extra) -> ConfigDict:
    """The LFW config on these people, with a network that trains in seconds.

    `evaluators` are entries of `config.evals`; by default of verification.
    """
    config = lfw.get_config()
    if evaluators is None:
        evaluators = verification_evaluators((1.0,), **HELD_OUT)
    set_evaluators(config, evaluators)
    small = {
        "steps": 4,
        "data.dir": data_dir(),
        "data.name": "people",
        "data.batch_size": 16,
        "data.num_threads": 1,
        "data.num_classes": 8,
        "data.train_identities": (0, 8),
        "data.image_shape": (SIZE, SIZE, 3),
        "augmentation.preset": "none",
        "model.image_size": (SIZE, SIZE),
        "model.patch_size": 8,
        "model.width": 16,
        "model.depth": 1,
        "model.num_heads": 2,
        "model.output_dim": 16,
        "optimizer.warmup": 0.0,
        "log.every_steps": 1,
        "evals.batch_size": 8,
        "evals.in_training": (),
        "checkpoint.best_metric": "",
    }
    config.update_from_flattened_dict({**small, **extra})
    return config.lock()
