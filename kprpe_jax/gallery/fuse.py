"""Fuse the photos or videos of each person, in streams of bounded memory."""

import pathlib
import sys
from collections.abc import Iterator
from typing import NamedTuple

from tqdm import tqdm

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.features import Features
from kprpe_jax.data.feature_file import write_feature_file
from kprpe_jax.data.read_photos import VIDEOS, visible_names
from kprpe_jax.detection.detector import Detector
from kprpe_jax.evaluation.feature_rows import about
from kprpe_jax.fusion.files import (
    FusionFile,
    check_fusion,
    load_stream,
    make_fusion,
    save_stream,
)
from kprpe_jax.gallery.fused_photos import FUSED_FIELDS, FaceStream
from kprpe_jax.gallery.header import NetworkSource
from kprpe_jax.gallery.photos import EmbeddedPhoto, PhotoFile, embed_photos, find_files


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
    source: NetworkSource | None = None,
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
      source: name and place of the fusion model, for the files; None = unknown.
      faces: of a photo: the one at its "center", or the "largest".
      batch_size: photos, and faces, at once.
      keep_state: write each stream's state, too.
      resume: continue with the states that are there, and write them again.
      on_error: at a photo that cannot be used, or a person without any: "fail", or
        "skip".
    Raises: ValueError: no people; a bad photo or person under "fail"; as `check_fusion`
      and `load_stream`. People before that one have their files then.
    """
    people = _find_people(photos)
    check_fusion(file, recognizer)
    facts = about(recognizer)
    source = source or NetworkSource(type(file.model).__name__, file.fingerprint)
    facts |= {"license": recognizer.license, "fusion": source._asdict()}
    # A stream belongs to the recognizer, too, where the fusion fits any.
    file = make_fusion(file.model, file.variables, backbone=recognizer.fingerprint)
    output.mkdir(parents=True, exist_ok=True)
    images: dict[str, int] = {}
    skipped: dict[str, str] = {}
    without: list[str] = []
    used = 0

    def usable(path: pathlib.Path) -> Iterator[EmbeddedPhoto]:
        folder = path if path.is_dir() else path.parent
        files = [
            PhotoFile(path.stem, x.relative_to(folder).as_posix(), x)
            for x in find_files(path)
        ]
        options = dict(faces=faces, batch_size=batch_size, fields=FUSED_FIELDS)
        for photo in embed_photos(files, recognizer, detector, **options):
            if photo.features is not None:
                yield photo
                continue
            place, reason = str(folder / photo.name), photo.faces.reasons[0]
            skipped[place] = reason
            if on_error == "fail":
                raise ValueError(f"{place}: {reason} (--on-error skip leaves it out)")

    for person, path in tqdm(
        people.items(), unit=" people", disable=not sys.stderr.isatty()
    ):
        state_path = output / f"{person}.state.npz"
        goes_on = resume and state_path.exists()
        faces_of = FaceStream(file, load_stream(state_path, file) if goes_on else None)
        before = faces_of.images
        for photo in usable(path):
            faces_of.add(photo.features, photo.faces.scores)
        used += faces_of.images - before
        if not faces_of.images:
            if on_error == "fail":
                raise ValueError(
                    f"{path} has no usable photo of {person}; add some, take it away, "
                    "or give --on-error skip"
                )
            without.append(person)
            continue
        fused = Features(faces_of.features().embeddings[None])
        write_feature_file(
            output / f"{person}.npz",
            fused,
            names=[path.name],
            persons=[person],
            counts=[faces_of.images],
            about=facts,
        )
        if keep_state or resume:
            save_stream(state_path, faces_of.stream(), file)
        images[person] = faces_of.images
    return FusedPeople(images, used, skipped, without)


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
    for person in people:
        if f"{person}.state" in people:
            raise ValueError(
                f"--photos {photos}: must not hold both {person} and {person}.state, "
                f"whose features would overwrite the state of {person}; rename one"
            )
    if not people:
        raise ValueError(
            f"--photos {photos}: must hold a folder of photos or a video for each "
            "person; got none"
        )
    return people
