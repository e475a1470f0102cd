"""Draw the assignment of a person's images to the clusters of CAFace.

    python -m experiments assignment_maps --fusion fusion.safetensors \
        --model mobilefacenet:mobilefacenet.npz [--images FOLDER]

Without --images the frames of a synthetic person are shown, from easy to hard.
"""

import argparse
import pathlib
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import options as shared
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.commands.options import add_model
from kprpe_jax.core.features import Features
from kprpe_jax.core.input_spec import to_unit_range
from kprpe_jax.data.read_photos import read_photos
from kprpe_jax.data.synthetic.nuisance import Severity
from kprpe_jax.data.synthetic.sequences import render_sequence
from kprpe_jax.fusion.aggregate import image_weights
from kprpe_jax.fusion.cluster_aggregate import ClusterAggregate, ImageSets
from kprpe_jax.fusion.files import FusionFile
from kprpe_jax.recognizers import load_fusion, load_recognizer
from kprpe_jax.report.assignments import plot_assignments

DIFFICULTIES = (0.5, 1.0, 1.5, 2.5)  # of the synthetic person's sequences


class SetAssignment(NamedTuple):
    """How CAFace fused one set.

    Attributes:
      assignment: A [M, N].
      importance: P, averaged over channels, [M].
      weights: method -> weight of each image [N], of sum 1.
    """

    assignment: np.ndarray
    importance: np.ndarray
    weights: dict[str, np.ndarray]


def assign(
    recognizer: Recognizer, file: FusionFile, images: np.ndarray
) -> SetAssignment:
    """Fuse one set and return its assignment.

    Args:
      recognizer: one that reads no keypoints.
      file: a ClusterAggregate of its features.
      images: uint8 [N, H, W, 3].
    Raises: ValueError: a model of another kind.
    """
    if not isinstance(file.model, ClusterAggregate):
        raise ValueError(
            "assignment_maps: the fusion model must be a ClusterAggregate; got "
            f"{type(file.model).__name__}, which has no assignments; name another file"
        )

    @jax.jit
    def run(recognizer: Recognizer, variables: Any, images: jax.Array):
        features = recognizer.features(to_unit_range(images))
        sets = ImageSets(
            Features(features.embeddings[None], style=features.style[None]),
            jnp.ones((1, len(images)), bool),
        )
        assignment = file.model.apply(variables, sets, method="assignment").map
        fused = file.model.apply(variables, sets)
        weights = image_weights(assignment, fused.importance, rows="normalized")
        norms = jnp.linalg.norm(features.embeddings, axis=-1)
        return assignment[0], fused.importance[0].mean(-1), weights[0], norms

    outputs = run(recognizer, file.variables, images)
    assignment, importance, weights, norms = jax.device_get(outputs)
    both = {"CAFace": weights, "average (norms)": norms / norms.sum()}
    return SetAssignment(assignment, importance, both)


def synthetic_person(person: int, *, frames: int = 5) -> np.ndarray:
    """Frames of a person that does not exist, uint8 [N, 112, 112, 3]."""

    @jax.jit
    def draw(index: jax.Array, difficulty: jax.Array) -> jax.Array:
        severity = Severity(*[difficulty] * len(Severity._fields))
        return render_sequence(
            0, person, index, num_frames=frames, severity=severity
        ).images

    parts = [draw(n, np.float32(d)) for n, d in enumerate(DIFFICULTIES)]
    return np.concatenate(parts)


def _read(folder: str, size: tuple[int, int]) -> np.ndarray:
    images = [image for _, image in read_photos(pathlib.Path(folder))]
    shapes = {getattr(image, "shape", None) for image in images}
    if shapes != {(*size, 3)}:
        raise ValueError(
            f"assignment_maps: {folder} must hold aligned faces of {size[0]} x "
            f"{size[1]} pixels; got {shapes or 'none'}; align them first"
        )
    return np.stack(images)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_model(parser)
    parser.add_argument(
        "--fusion", metavar="SPEC", required=True, help="CAFace: NAME:FILE or a run"
    )
    parser.add_argument(
        "--images", metavar="DIR", help="aligned faces of a person, in place of frames"
    )
    parser.add_argument(
        "--person", type=int, default=1000, help="number of the synthetic one (1000)"
    )
    shared.add_picture(parser, "assignments.png")


def run(options: argparse.Namespace) -> None:
    """Draw the assignment of one person's images."""
    recognizer = load_recognizer(options.model)
    file = load_fusion(options.fusion, recognizer)
    if options.images is None:
        images = synthetic_person(options.person)
    else:
        images = _read(options.images, recognizer.image_size)
    found = assign(recognizer, file, images)
    plot_assignments(images, *found, options.output)
    sys.stdout.write(f"written to {options.output}\n")
