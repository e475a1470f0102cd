"""Fuse the photos or videos of each person, in streams of bounded memory."""

import itertools
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.errors import ScopeParamShapeError
from tqdm import tqdm

from kprpe_jax.alignment.photos import AlignedFace
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.features import Features
from kprpe_jax.data.feature_file import write_feature_file
from kprpe_jax.data.read_photos import VIDEOS, read_photos, visible_names
from kprpe_jax.detection.detector import Detector
from kprpe_jax.detection.photo_faces import read_faces
from kprpe_jax.evaluation.feature_rows import about
from kprpe_jax.fusion.cluster_aggregate import ImageSets
from kprpe_jax.fusion.files import (
    FusionFile,
    Stream,
    load_stream,
    make_fusion,
    save_stream,
)

# (state, images [N, h, w, 3], keypoints [N, K, 2], mask [N]) -> next state
Step = Callable[[Any, np.ndarray, np.ndarray, np.ndarray], Any]


class FusedPeople(NamedTuple):
    """The outcome of `fuse_people`.

    Attributes:
      images: person -> images of the embedding, those of earlier days included.
      used: photos of this run that were fused.
      skipped: photos that were not -> the reason.
      without: people without a usable photo, who have no file.
    """

    images: dict[str, int]
    used: int
    skipped: dict[str, str]
    without: list[str]


def fuse_people(
    photos: pathlib.Path,
    output: pathlib.Path,
    recognizer: Recognizer,
    file: FusionFile,
    detector: Detector | None = None,
    *,
    faces: str = "center",
    batch_size: int = 64,
    keep_state: bool = False,
    resume: bool = False,
    on_error: str = "fail",
) -> FusedPeople:
    """Fuse everyone in a folder.

    Args:
      photos: holds a folder of photos or a video for each person.
      output: folder of the files; made if absent.
      recognizer, file: the network, and the fusion model of its features.
      detector: None = the photos are aligned faces.
      faces: of a photo: the one at its "center", or the "largest".
      batch_size: N', images that are fused at once.
      keep_state: write each stream's state, too.
      resume: continue with the states that are there, and write them again.
      on_error: at a photo that cannot be used, or a person without any: "fail", or
        "skip".
    Raises: ValueError: no people; a bad photo or person under "fail"; as `make_step`
      and `load_stream`. People before that one have their files then.
    """
    people = _find_people(photos)
    step = make_step(recognizer, file)
    facts = about(recognizer)
    # A stream belongs to the recognizer, too, where the fusion fits any.
    file = make_fusion(file.model, file.variables, backbone=facts["fingerprint"])
    output.mkdir(parents=True, exist_ok=True)
    images: dict[str, int] = {}
    skipped: dict[str, str] = {}
    without: list[str] = []
    used = 0

    def usable(path: pathlib.Path, found: Iterator) -> Iterator[AlignedFace]:
        for photo in found:
            if photo.faces:
                yield photo.faces[0]
                continue
            place = path / photo.name if path.is_dir() else path.parent / photo.name
            skipped[str(place)] = photo.reasons[0]
            if on_error == "fail":
                raise ValueError(
                    f"{place}: {photo.reasons[0]} (--on-error skip leaves it out)"
                )

    for person, path in tqdm(
        people.items(), unit=" people", disable=not sys.stderr.isatty()
    ):
        state_path = output / f"{person}.state.npz"
        stream = Stream(file.model.init_state(1), 0)
        if resume and state_path.exists():
            stream = load_stream(state_path, file)
        before = stream.images
        if not path.is_dir() or any(path.iterdir()):
            found = read_faces(
                read_photos(path),
                recognizer.input_spec,
                detector,
                faces=faces,
                batch_size=min(batch_size, 8),
            )
            stream = add_faces(stream, usable(path, found), step, batch_size)
        used += stream.images - before
        if not stream.images:
            if on_error == "fail":
                raise ValueError(
                    f"{path} has no usable photo of {person}; add some, take it away, "
                    "or give --on-error skip"
                )
            without.append(person)
            continue
        fused = file.model.apply(file.variables, stream.state, method="finalize")
        write_feature_file(
            output / f"{person}.npz",
            fused.features,
            names=[path.name],
            persons=[person],
            counts=[stream.images],
            about={**facts, "license": recognizer.license, "fusion": file.fingerprint},
        )
        if keep_state or resume:
            save_stream(state_path, stream, file)
        images[person] = stream.images
    return FusedPeople(images, used, skipped, without)


def make_step(recognizer: Recognizer, file: FusionFile) -> Step:
    """Compile: (state, faces and a mask as one padded batch) -> next state.

    Returns: function of the state, images float32 [N, h, w, 3], keypoints [N, K, 2] and
      a mask bool [N].
    Raises: ValueError: the fusion model is of another recognizer, or of other sizes.
    """
    if file.backbone and file.backbone != recognizer.fingerprint:
        raise ValueError(
            f"the fusion model is of the recognizer {file.backbone[:16]}; got "
            f"{recognizer.fingerprint[:16]} ({recognizer.name}); give the --model and "
            "--style-maps that its features were made with"
        )
    shapes = recognizer.shapes()
    if shapes.embeddings.shape[-1] != file.model.embed_dim:
        raise ValueError(
            f"the fusion model needs embeddings of {file.model.embed_dim} channels; "
            f"{recognizer.name} gives {shapes.embeddings.shape[-1]}; take its own "
            "recognizer"
        )

    @jax.jit
    def step(recognizer, fusion, state, images, keypoints, mask):
        found = recognizer.features(images, keypoints)
        features = jax.tree.map(
            lambda x: x[None], Features(found.embeddings, style=found.style)
        )
        sets = ImageSets(features, mask[None])
        return file.model.apply(fusion, state, sets, method="update")

    size = recognizer.image_size
    example = (
        np.zeros((1, *size, 3), np.float32),
        np.zeros((1, 5, 2), np.float32),
        np.ones(1, bool),
    )
    state = file.model.init_state(1)
    try:
        jax.eval_shape(step, recognizer, file.variables, state, *example)
    except ScopeParamShapeError as error:
        raise ValueError(
            "the fusion model needs style statistics of other maps than the "
            f"{shapes.style.shape[-2]} channels that {recognizer.name} gives; give the "
            "--style-maps that it was trained with"
        ) from error
    placed = jax.device_put((recognizer, file.variables))
    return lambda *arguments: step(*placed, *arguments)


def add_faces(
    stream: Stream, faces: Iterator[AlignedFace], step: Step, batch_size: int
) -> Stream:
    """Add faces to a stream, in batches of one size; the last one is padded.

    Args:
      stream: of one set.
      faces: aligned.
      step: of `make_step`.
      batch_size: N'.
    """
    state, count = stream
    while batch := list(itertools.islice(faces, batch_size)):
        rows = [batch[i % len(batch)] for i in range(batch_size)]
        images = np.stack([face.image for face in rows])
        keypoints = np.stack([np.float32(face.keypoints) for face in rows])
        state = step(state, images, keypoints, np.arange(batch_size) < len(batch))
        count += len(batch)
    return Stream(state, count)


def _find_people(photos: pathlib.Path) -> dict[str, pathlib.Path]:
    """Person -> folder or video."""
    people: dict[str, pathlib.Path] = {}
    for name in visible_names(photos) if photos.is_dir() else ():
        path = photos / name
        if not (path.is_dir() or path.suffix.lower() in VIDEOS):
            continue
        person = name if path.is_dir() else path.stem
        if person in people:
            raise ValueError(
                f"--photos {photos}: must hold one folder or video of {person}; got "
                "two; join them"
            )
        people[person] = path
    if not people:
        raise ValueError(
            f"--photos {photos}: must hold a folder of photos or a video for each "
            "person; got none"
        )
    return people
