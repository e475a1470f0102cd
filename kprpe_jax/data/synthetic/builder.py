"""The TFDS data set of synthetic faces, with rows as those of imported faces."""

import io

import numpy as np
import tensorflow_datasets as tfds
import tqdm
from PIL import Image

from kprpe_jax.data.importers.dataset import features
from kprpe_jax.data.synthetic.landmarks import NUM_LANDMARKS
from kprpe_jax.data.synthetic.source import FaceSource

_JPEG = {"quality": 95, "subsampling": 0}
_READ_AT_ONCE = 256


class SyntheticFaces(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Synthetic faces, stored as JPEG: people to train on, and others to test on.

    Rows have the fields of `importers.dataset.features`, with the landmarks float32
    [84, 2] and the quality float32 in addition; they stand in order of identity. Labels
    are the people's numbers: no label means two people, and those of the split "test"
    begin where "train" ends. The metadata hold the arguments, by default those of
    configs/synthetic_faces.py.

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
        people = {"train": num_identities, "test": num_test_identities}
        first = {"train": 0, "test": num_identities}
        self._sources = {
            split: FaceSource(
                num_identities=count, first_identity=first[split], **settings
            )
            for split, count in people.items()
        }
        self._arguments = {
            "num_identities": num_identities,
            "num_test_identities": num_test_identities,
            **settings,
        }
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        points = tfds.features.Tensor(shape=(NUM_LANDMARKS, 2), dtype=np.float32)
        more = {"landmarks": points, "quality": np.float32}
        return tfds.core.DatasetInfo(
            builder=self,
            description="Synthetic faces of people that do not exist.",
            features=tfds.features.FeaturesDict({**features({}), **more}),
            metadata=tfds.core.MetadataDict(self._arguments),
            disable_shuffling=True,  # the loader shuffles
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        return {
            split: self._generate_examples(source)
            for split, source in self._sources.items()
        }

    def _generate_examples(self, source: FaceSource):
        bar = tqdm.tqdm(total=len(source), unit=" images", disable=None)
        for start in range(0, len(source), _READ_AT_ONCE):
            rows = range(start, min(start + _READ_AT_ONCE, len(source)))
            for row in source.__getitems__(rows):
                bar.update()
                jpeg = io.BytesIO()
                Image.fromarray(row["image"]).save(jpeg, "JPEG", **_JPEG)
                number = int(row["id"])
                yield (
                    number,
                    {
                        "image": jpeg.getvalue(),
                        "label": row["label"],
                        "identity": str(row["label"]),
                        "key": str(number),
                        "keypoints": row["keypoints"],
                        "has_keypoints": True,
                        "landmarks": row["landmarks"],
                        "quality": row["quality"],
                    },
                )
