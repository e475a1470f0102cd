"""Rows of rendered sequences, with a recognizer that reads brightness alone."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.cluster_aggregate.synthetic_sequences import (
    DIFFICULTIES,
    FRAMES,
    sequence_rows,
)
from kprpe_jax.backbones.network import Network
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.features import Features
from kprpe_jax.core.input_spec import InputSpec


class Brightness(Network):
    """Embeds the mean color."""

    def __call__(self, images, keypoints=None, *, train=False):
        return images.mean((1, 2))

    def features(self, images, keypoints=None, *, train=False, style_maps=()):
        return Features(self(images), style=jnp.zeros((len(images), 1, 2)))


@pytest.mark.slow
def test_rows_of_people_and_their_frames():
    recognizer = Recognizer({}, Brightness(), InputSpec((112, 112)), "brightness")
    rows = {
        split: list(rows)
        for split, rows in sequence_rows(recognizer, range(5, 7), seed=0).items()
    }
    assert [row["label"] for row in rows["clean"]] == [0, 0, 1, 1]
    assert [row["photo"] for row in rows["clean"]] == [0, 1, 2, 3]
    per_person = FRAMES * len(DIFFICULTIES)
    labels = [row["label"] for row in rows["degraded"]]
    assert labels == [0] * per_person + [1] * per_person
    # No frame belongs to a person's first picture, which is enrolled.
    assert {(r["label"], r["photo"]) for r in rows["degraded"]} == {(0, 1), (1, 3)}
    frames = np.stack([row["embedding"] for row in rows["degraded"]])
    assert len(np.unique(frames, axis=0)) > per_person
    clean = np.stack([row["embedding"] for row in rows["clean"]])
    assert np.abs(clean[0] - clean[2]).max() > 1e-3  # other people look otherwise
