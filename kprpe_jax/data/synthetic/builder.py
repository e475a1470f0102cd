"""The TFDS data set of synthetic faces, with rows as those of imported faces."""

import functools
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
import tqdm
from PIL import Image

from kprpe_jax.data.importers.dataset import face_features
from kprpe_jax.data.prepare import RowsBuilder
from kprpe_jax.data.rows import read_rows
from kprpe_jax.data.synthetic.landmarks import NUM_LANDMARKS
from kprpe_jax.data.synthetic.source import FaceSource

_JPEG = {"quality": 95, "subsampling": 0}


class SyntheticFaces(RowsBuilder, skip_registration=True):
    """Synthetic faces, stored as JPEG: people to train on, and others to test on.

    Rows have the fields of `importers.dataset.face_features`, with the landmarks
    float32 [84, 2] and the quality float32 in addition; they stand in order of
    identity. Labels are the people's numbers: no label means two people, and those of
    the split "test" begin where "train" ends. The metadata hold the arguments, by
    default those of configs/synthetic_faces.py.

    Args:
      num_identities: people of the split "train", 0 .. num_identities - 1.
      num_test_identities: others, of the split "test", numbered on.
      images_per_identity: images of each.
      seed, difficulty, size, layout: of `FaceSource`.
      **kwargs: of the TFDS builder.
    Raises: ValueError: arguments that FaceSource refuses.
    """

    VERSION = tfds.core.Version("2.0.0")

    def __init__(
        self,
        *,
        num_identities: int = 500,
        num_test_identities: int = 100,
        images_per_identity: int = 20,
        seed: int = 0,
        difficulty: float = 1.0,
        size: int = 112,
        layout: str = "aligned",
        **kwargs,
    ):
        settings = {
            "images_per_identity": images_per_identity,
            "seed": seed,
            "difficulty": difficulty,
            "size": size,
            "layout": layout,
        }
        people = {
            "train": (0, num_identities),
            "test": (num_identities, num_test_identities),
        }
        sources = {
            split: FaceSource(num_identities=count, first_identity=first, **settings)
            for split, (first, count) in people.items()
        }
        points = tfds.features.Tensor(shape=(NUM_LANDMARKS, 2), dtype=np.float32)
        super().__init__(
            description="Synthetic faces of people that do not exist.",
            features={**face_features({}), "landmarks": points, "quality": np.float32},
            splits={
                split: functools.partial(_rows, source)
                for split, source in sources.items()
            },
            metadata={
                "num_identities": num_identities,
                "num_test_identities": num_test_identities,
                **settings,
            },
            **kwargs,
        )


def _rows(source: FaceSource) -> Iterator[dict[str, Any]]:
    rows = read_rows(source)
    for row in tqdm.tqdm(rows, total=len(source), unit=" images", disable=None):
        jpeg = io.BytesIO()
        Image.fromarray(row["image"]).save(jpeg, "JPEG", **_JPEG)
        fields = ("label", "keypoints", "landmarks", "quality")
        yield {
            **{field: row[field] for field in fields},
            "image": jpeg.getvalue(),
            "identity": str(row["label"]),
            "key": str(row["id"]),
            "has_keypoints": True,
        }
