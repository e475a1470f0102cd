"""A recognizer that is a Python function, and what a run says of its data."""

from collections.abc import Callable
from typing import NamedTuple

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.features import Features
from kprpe_jax.core.input_spec import InputSpec
from kprpe_jax.evaluation.evaluators.faces import FaceData


class Function(NamedTuple):
    """In place of a network."""

    call: Callable

    def apply(self, variables, images, keypoints=None, method=None, style_maps=()):
        embeddings = self.call(variables, images, keypoints)
        return Features(embeddings) if method == "features" else embeddings


def function_recognizer(call, size, variables=None, num_keypoints=5) -> Recognizer:
    """A recognizer of `call(variables, images, keypoints) -> embeddings`."""
    spec = InputSpec(size, num_keypoints=num_keypoints)
    return Recognizer(variables, Function(call), spec, "function")


def face_data(folder="", *, size, batch_size=8, **fields) -> FaceData:
    """A run that trains on another data set than is evaluated."""
    values = dict(
        dir=str(folder), name="trained", train_split="train", train_identities=(),
        image_size=size, points="keypoints", needs_keypoints=True,
        batch_size=batch_size,
    )  # fmt: skip
    return FaceData(**{**values, **fields})
