"""Features of synthetic people before a camera, to train and test set fusion on.

    python -m experiments synthetic_sequences --model mobilefacenet:mobilefacenet.npz

writes the data sets `sequences_train` and `sequences_probes`, of different people, in
the form that `kprpe-jax embed` writes: `clean` has two nearly undisturbed pictures of
each person, `degraded` the frames of sequences that are harder and harder to recognize.
"""

import argparse
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.commands.options import add_data_dir, add_model, words
from kprpe_jax.core.input_spec import to_unit_range
from kprpe_jax.data.features import write_features
from kprpe_jax.data.synthetic.faces import render_faces
from kprpe_jax.data.synthetic.nuisance import Severity
from kprpe_jax.data.synthetic.sequences import render_sequence
from kprpe_jax.evaluation.feature_rows import about, row_shapes
from kprpe_jax.recognizers import load_recognizer

CLEAN_DIFFICULTY = 0.2
DIFFICULTIES = (1.0, 1.5, 2.0, 2.5)  # of a person's sequences, in turn
FRAMES = 16
PEOPLE = {"sequences_train": (0, 100), "sequences_probes": (100, 160)}


def sequence_rows(
    recognizer: Recognizer, people: range, *, seed: int
) -> dict[str, Iterator[dict[str, Any]]]:
    """Rows of both splits of `data.features`.

    Args:
      recognizer: of faces of 112 pixels height that reads no keypoints.
      people: numbers of the people; labels count them from 0.
      seed: of all people and pictures.
    """
    recognizer = jax.device_put(recognizer)

    @jax.jit
    def clean(person):
        people, index = jnp.full(2, person), jnp.arange(2)
        severity = severity_of(CLEAN_DIFFICULTY)
        images = render_faces(seed, people, index, severity=severity).images
        images = to_unit_range(images)
        features = recognizer.features(images)
        mirrored = recognizer.embed(images[:, :, ::-1])
        return features.embeddings + mirrored, features.style

    @jax.jit
    def sequence(person, index, difficulty):
        severity = severity_of(difficulty)
        frames = render_sequence(
            seed, person, index, num_frames=FRAMES, severity=severity
        )
        features = recognizer.features(frames.images / 127.5 - 1)
        return features.embeddings, features.style

    def pictures(label: int, person: int):
        for place, features in enumerate(_rows(clean(person))):
            yield {**features, "label": label, "photo": 2 * label + place}

    def frames(label: int, person: int):
        # Frames are not of the enrolled picture, the first: they go by the second.
        for index, difficulty in enumerate(DIFFICULTIES):
            for features in _rows(sequence(person, index, np.float32(difficulty))):
                yield {**features, "label": label, "photo": 2 * label + 1}

    def of_all(one):
        for label, person in enumerate(people):
            yield from one(label, person)

    return {"clean": of_all(pictures), "degraded": of_all(frames)}


def severity_of(difficulty: Any) -> Severity:
    """All nuisances alike."""
    return Severity(*[difficulty] * len(Severity._fields))


def _rows(features: Any) -> Iterator[dict[str, np.ndarray]]:
    for embedding, style in zip(*jax.device_get(features), strict=True):
        yield {"embedding": embedding, "style": style}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_model(parser)
    add_data_dir(parser)
    parser.add_argument(
        "--sets",
        type=words,
        default=list(PEOPLE),
        metavar="NAME,NAME",
        help=f"data sets to write ({','.join(PEOPLE)})",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of all people and images (0)"
    )


def run(options: argparse.Namespace) -> None:
    """Write the data sets."""
    if not set(options.sets) <= set(PEOPLE):
        raise ValueError(
            f"--sets must be some of {', '.join(PEOPLE)}; got {','.join(options.sets)}"
        )
    recognizer = load_recognizer(options.model)
    for name in options.sets:
        first, last = PEOPLE[name]
        path = write_features(
            sequence_rows(recognizer, range(first, last), seed=options.seed),
            name=name,
            data_dir=options.data_dir,
            shapes=row_shapes(recognizer, ("embeddings", "style")),
            origin={**about(recognizer), "seed": options.seed},
        )
        sys.stdout.write(f"{name}: {last - first} people; in {path}\n")
