"""Rows that the evaluators of faces read."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from kprpe_jax.data.faces import FaceRows, open_faces
from kprpe_jax.data.pair_sets import open_pair_set
from kprpe_jax.evaluation.pairs import Pairs, sample_pairs


class FaceData(NamedTuple):
    """What a run says of its data to every evaluator of faces.

    Attributes:
      dir: folder of all data sets.
      name, train_split, train_identities: what training reads; identities are (first,
        last), () = all.
      image_size: (height, width) of the rows.
      points: field of the rows that the keypoints come from.
      needs_keypoints: whether the network reads keypoints.
      batch_size: rows of the global batch.
    """

    dir: str
    name: str
    train_split: str
    train_identities: tuple[int, ...]
    image_size: tuple[int, int]
    points: str
    needs_keypoints: bool
    batch_size: int

    @classmethod
    def of(cls, config: ConfigDict, *, needs_keypoints: bool) -> "FaceData":
        """From the sections `data` and `evals` of a config."""
        data = config.data
        return cls(
            os.fspath(data.dir),
            data.name,
            data.train_split,
            tuple(data.train_identities),
            tuple(data.image_shape[:2]),
            data.points,
            needs_keypoints,
            config.evals.batch_size,
        )

    def open(self, name: str, split: str, identities: Sequence[int]) -> FaceRows:
        """The held-out rows of a data set; "" = that of training.

        Raises: ValueError: as `open_faces`, `check_held_out`; rows without keypoints
          where the network reads them.
        """
        name = name or self.name
        self.check_held_out(name, split, identities)
        return open_faces(
            self.dir,
            name,
            split,
            image_size=self.image_size,
            identities=tuple(identities) or None,
            points=self.points,
            needs_keypoints=self.needs_keypoints,
        )

    def check_held_out(self, name: str, split: str, identities: Sequence[int]) -> None:
        """Raise ValueError where an evaluator would test identities of training.

        Args:
          name, split: data set that the evaluator reads.
          identities: (first, last), of which the last is left out; () = all.
        """
        if len(identities) not in (0, 2):
            raise ValueError(
                "identities must be (first, last), of which the last is left out, or "
                f"() for all; got {tuple(identities)}."
            )
        if (name, split) != (self.name, self.train_split):
            return
        everybody = (0, np.inf)
        trained = self.train_identities or everybody
        tested = tuple(identities) or everybody
        if max(trained[0], tested[0]) < min(trained[1], tested[1]):
            raise ValueError(
                f"identities must be held-out identities of {name}; got "
                f"{tuple(identities)}, and config.data.train_identities "
                f"{self.train_identities} of the same split {split!r}, where () is "
                "everybody and (0, 0) nobody; change one of them."
            )

    def open_pairs(
        self,
        name: str,
        split: str,
        identities: Sequence[int],
        count: int,
    ) -> tuple[FaceRows, Pairs]:
        """Rows and the pairs of them to compare.

        Args:
          name: of the data set; "" = that of training.
          split, identities: as `check_held_out`.
          count: how many pairs are sampled; 0 = the official pairs of the data set.
        """
        if not count:
            return self.open_official_pairs(name or self.name)
        faces = self.open(name, split, identities)
        return faces, sample_pairs(faces.labels(), count=count, seed=0)

    def open_official_pairs(
        self, name: str, *, needs_keypoints: bool = False
    ) -> tuple[FaceRows, Pairs]:
        """Images and official pairs of a verification set."""
        found = open_pair_set(
            self.dir,
            name,
            image_size=self.image_size,
            needs_keypoints=needs_keypoints or self.needs_keypoints,
        )
        pairs = Pairs(found.first, found.second, found.same, found.num_folds)
        return found.faces, pairs
