"""TinyFace's test set: probes, their matches in the gallery, distractors."""

import os
from collections.abc import Iterator

import numpy as np

from kprpe_jax.data.importers.record import (
    NO_IDENTITY,
    Record,
    RecordSource,
    RejectedRecord,
    names_state,
    read_image,
)
from kprpe_jax.data.importers.tables import is_number
from kprpe_jax.data.read_photos import visible_names

PARTS = {"Probe": "probe", "Gallery_Match": "match", "Gallery_Distractor": "distractor"}


def open_tinyface(folder: str | os.PathLike) -> RecordSource:
    """Open TinyFace.

    Args:
      folder: it holds Probe, Gallery_Match and Gallery_Distractor, maybe inside of
        Testing_Set.
    Returns: a source with keys "Probe/2_1.jpg", the number before the first underscore
      as identity (distractors have none), the field `part`: "probe", "match" or
      "distractor", and the table `num_probes`, readable or not. The gallery is the
      matches and the distractors.
    Raises: ValueError: a folder that is missing or empty.
    """
    folder = os.fspath(folder)
    inner = os.path.join(folder, "Testing_Set")
    folder = inner if os.path.isdir(inner) else folder
    files = {}
    for name in PARTS:
        path = os.path.join(folder, name)
        files[name] = visible_names(path) if os.path.isdir(path) else []
        if not files[name]:
            raise ValueError(
                f"{path} must be a folder of images; got "
                + ("an empty one" if os.path.isdir(path) else "no such folder")
                + f"; give the folder that holds {', '.join(PARTS)}"
            )
    num_probes = sum(_person(file) is not None for file in files["Probe"])
    entries = [(name, file) for name in PARTS for file in files[name]]

    def read(start: int) -> Iterator[Record | RejectedRecord]:
        for name, file in entries[start:]:
            yield _entry(folder, name, file)

    return RecordSource(
        read,
        state=names_state(f"{name}/{file}" for name, file in entries),
        count=len(entries),
        extra={"part": str},
        tables={"num_probes": np.array(num_probes)},
    )


def _person(file: str) -> int | None:
    """The number before the first underscore of a name."""
    number, underscore, _ = file.partition("_")
    return int(number) if underscore and is_number(number) else None


def _entry(folder: str, name: str, file: str) -> Record | RejectedRecord:
    key = f"{name}/{file}"
    identity = NO_IDENTITY if name == "Gallery_Distractor" else _person(file)
    if identity is None:
        return RejectedRecord(
            key, "wrong label", "the name must begin with number_underscore"
        )
    image = read_image(os.path.join(folder, name, file), key)
    if isinstance(image, RejectedRecord):
        return image
    return Record(key, image, identity, {"part": PARTS[name]})
