"""Fuse the photos or videos of each person, in streams of bounded memory."""

import pathlib
import sys
from collections.abc import Iterator
from typing import NamedTuple

from tqdm import tqdm

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.features import Features
from kprpe_jax.data.feature_file import write_feature_file
from kprpe_jax.data.importers.record import RejectedRecord
from kprpe_jax.data.left_out import faces_left_out
from kprpe_jax.data.read_photos import FoundPhotos, PhotoPath, find_photos, is_video
from kprpe_jax.detection.detector import Detector
from kprpe_jax.evaluation.feature_rows import about
from kprpe_jax.fusion.files import (
    FusionFile,
    check_fusion,
    load_stream,
    make_fusion,
    save_stream,
)
from kprpe_jax.gallery.enroll import check_skip
from kprpe_jax.gallery.fused_photos import FUSED_FIELDS, FaceStream
from kprpe_jax.gallery.header import NetworkSource
from kprpe_jax.gallery.photos import EmbeddedPhoto, PhotoFile, as_text, embed_photos


class FusedPeople(NamedTuple):
    """The outcome of `fuse_people`.

    Attributes:
      images: person -> images of the embedding, those of earlier days included.
      used: photos of this run that were fused.
      left_out: everything else that was given.
      without: people without a usable photo, who have no file.
    """

    images: dict[str, int]
    used: int
    left_out: list[RejectedRecord]
    without: list[str]


def fuse_people(
    photos: PhotoPath,
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
      photos: holds a folder of photos or a video for each person; or what
        `find_photos` found there.
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
    given = find_photos(photos, may_be_none=True)
    people, loose = _find_people(given)
    check_fusion(file, recognizer)
    facts = about(recognizer)
    source = source or NetworkSource(type(file.model).__name__, file.fingerprint)
    facts |= {"license": recognizer.license, "fusion": source._asdict()}
    # A stream belongs to the recognizer, too, where the fusion fits any.
    file = make_fusion(file.model, file.variables, backbone=recognizer.fingerprint)
    output.mkdir(parents=True, exist_ok=True)
    images: dict[str, int] = {}
    left_out = [*given.passed_over(), *loose]
    without: list[str] = []
    used = 0

    def usable(files: list[PhotoFile]) -> Iterator[EmbeddedPhoto]:
        options = dict(faces=faces, batch_size=batch_size, fields=FUSED_FIELDS)
        for photo in embed_photos(files, recognizer, detector, **options):
            if photo.features is not None:
                yield photo
                continue
            left_out.extend(faces_left_out(photo.faces, photo.name))
            check_skip(left_out[-1], on_error)

    for person, files in tqdm(
        people.items(), unit=" people", disable=not sys.stderr.isatty()
    ):
        state_path = output / f"{person}.state.npz"
        goes_on = resume and state_path.exists()
        faces_of = FaceStream(file, load_stream(state_path, file) if goes_on else None)
        before = faces_of.images
        for photo in usable(files):
            faces_of.add(photo.features, photo.faces.scores)
        used += faces_of.images - before
        if not faces_of.images:
            if on_error == "fail":
                raise ValueError(
                    f"--photos: {given.path / person} has no usable photo of {person}; "
                    "add some, take it away, or give --on-error skip"
                )
            without.append(person)
            continue
        fused = Features(faces_of.features().embeddings[None])
        write_feature_file(
            output / f"{person}.npz",
            fused,
            names=[files[0].name.split("/")[0] if files else person],
            persons=[person],
            counts=[faces_of.images],
            about=facts,
        )
        if keep_state or resume:
            save_stream(state_path, faces_of.stream(), file)
        images[person] = faces_of.images
    return FusedPeople(images, used, left_out, without)


def _find_people(
    found: FoundPhotos,
) -> tuple[dict[str, list[PhotoFile]], list[RejectedRecord]]:
    """Photos and videos by person, and the photos that lie in nobody's folder."""
    photos = found.path
    people: dict[str, list[PhotoFile]] = {name: [] for name in found.empty}
    own: dict[str, str] = {
        name: name for name in found.empty
    }  # person -> what holds it
    loose = []
    for file in found.files:
        inside = pathlib.PurePosixPath(found.name(file))
        top = inside.parts[0]
        person = top if len(inside.parts) > 1 else inside.stem
        name = as_text(inside.as_posix())
        if file == photos or (top == inside.name and not is_video(file)):
            loose.append(
                RejectedRecord(name, "nobody's", "it is in no person's folder")
            )
            continue
        if own.setdefault(person, top) != top:
            raise ValueError(
                f"--photos {photos}: must hold one folder or video of {person}; got "
                "two; join them"
            )
        people.setdefault(person, []).append(PhotoFile(person, name, file))
    people = dict(sorted(people.items()))
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
    return people, loose
