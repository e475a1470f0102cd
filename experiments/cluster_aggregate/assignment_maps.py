"""Draw what CAFace does with the images of a person.

    python -m experiments assignment_maps --fusion fusion.safetensors \
        --model mobilefacenet:mobilefacenet.npz [--images FOLDER]

Without --images the frames of a synthetic person are shown, from easy to hard.
"""

import pathlib
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging

from kprpe_jax.backbones.recognizer import Recognizer
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

DIFFICULTIES = (0.5, 1.0, 1.5, 2.5)  # of the drawn person's sequences

_FUSION = flags.DEFINE_string("fusion", None, "Fusion model, a SPEC.")
_MODEL = flags.DEFINE_string("model", None, "Recognizer, a SPEC (NAME:FILE).")
_IMAGES = flags.DEFINE_string("images", None, "Folder of aligned faces of a person.")
_PERSON = flags.DEFINE_integer("person", 1000, "Number of the drawn person.", 0)
_OUTPUT = flags.DEFINE_string("output", "assignments.png", "Picture to write.")


class Looked(NamedTuple):
    """What CAFace made of one set.

    Attributes:
      assignment: A [M, N].
      importance: P, averaged over channels, [M].
      weights: method -> weight of each image [N], of sum 1.
    """

    assignment: np.ndarray
    importance: np.ndarray
    weights: dict[str, np.ndarray]


def look(recognizer: Recognizer, file: FusionFile, images: np.ndarray) -> Looked:
    """Fuse one set and keep how.

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
    return Looked(assignment, importance, both)


def drawn_person(person: int, *, frames: int = 5) -> np.ndarray:
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


def main(argv: list[str]) -> None:
    """Draw what the flags name."""
    logging.set_verbosity(logging.WARNING)
    try:
        if argv[1:]:
            raise ValueError(
                f"assignment_maps: everything is given by flags; got {argv[1:]}; see "
                "--help"
            )
        recognizer = load_recognizer(_MODEL.value)
        width = recognizer.shapes().embeddings.shape[-1]
        file = load_fusion(_FUSION.value, embed_dim=width)
        if _IMAGES.value is None:
            images = drawn_person(_PERSON.value)
        else:
            images = _read(_IMAGES.value, recognizer.image_size)
        looked = look(recognizer, file, images)
        plot_assignments(images, *looked, _OUTPUT.value)
    except ValueError as e:
        sys.exit(f"error: {e}")
    sys.stdout.write(f"written to {_OUTPUT.value}\n")


def start() -> None:
    """Run from the command line."""
    flags.mark_flags_as_required(["fusion", "model"])
    app.run(main)
