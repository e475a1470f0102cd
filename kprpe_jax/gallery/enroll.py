"""Enroll people: a folder of each one's photos into a gallery on disk.

    python -m kprpe_jax.gallery.enroll --gallery people.gallery \
        --photos folder --weights mobilefacenet.npz --detector retinaface.npz

A killed enrollment goes on when the same command is run again: photos that are there
already are passed over. With --remove people leave; nothing else is done.
"""

import argparse
import hashlib
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from kprpe_jax.data.importers.dataset import ON_ERROR
from kprpe_jax.data.importers.image_folder import open_image_folder
from kprpe_jax.data.importers.record import Record, RecordSource, RejectedRecord
from kprpe_jax.gallery.command import (
    make_parser,
    read_encoder,
    read_prepare,
    run,
)
from kprpe_jax.gallery.encoder import Encoder
from kprpe_jax.gallery.gallery import Entry, Gallery, Model
from kprpe_jax.gallery.packing import KINDS
from kprpe_jax.gallery.photos import Prepare, embed_faces

BATCH = 32  # photos of a transaction


class Enrolled(NamedTuple):
    """What an enrollment did.

    Attributes:
      added: photos that are new.
      known: photos that were there.
      bad: name -> why a photo was left out.
    """

    added: int
    known: int
    bad: dict[str, str]


def describe_model(encoder: Encoder, patches: str) -> Model:
    """What a gallery of this encoder says about itself; one face is embedded."""
    height, width = encoder.image_size
    blank = np.zeros((height, width, 3), np.float32), np.zeros((5, 2), np.float32)
    faces = embed_faces(encoder)([blank])
    return Model(
        encoder.name,
        encoder.fingerprint,
        faces.embeddings.shape[-1],
        encoder.grid,
        faces.patches.shape[-1],
        patches,
    )


def enroll(
    gallery: Gallery,
    source: RecordSource,
    encoder: Encoder,
    prepare: Prepare,
    *,
    on_error: str = "fail",
) -> Enrolled:
    """Add the photos of a source to a gallery, a batch at a time.

    Args:
      gallery: open, of this encoder.
      source: `Record.identity` is the person's name.
      encoder: the network.
      prepare: how a photo becomes a face.
      on_error: at a photo that cannot be read, shows no face, or has the name or the
        file of another one: `fail`, or `skip` it.
    Raises: ValueError: a bad photo with `fail`. Batches before it stay.
    """
    embed, bad, known, added = embed_faces(encoder), {}, 0, 0
    batch: list[tuple[Record, str, tuple]] = []

    def flush() -> None:
        faces = embed([face for _, _, face in batch])
        rows = zip(batch, faces.embeddings, faces.patches, strict=True)
        gallery.add(
            [
                Entry(str(record.identity), record.key, digest, embedding, patches)
                for (record, digest, _), embedding, patches in rows
            ]
        )
        batch.clear()

    for record, digest, face in _faces(source, prepare, gallery):
        if isinstance(face, str):
            if on_error == "fail":
                raise ValueError(
                    f"enroll: {record.key}: {face}; or leave such photos out with "
                    "--on_error skip"
                )
            bad[record.key] = face
        elif face is None:
            known += 1
        else:
            batch.append((record, digest, face))
            added += 1
        if len(batch) == BATCH:
            flush()
    if batch:
        flush()
    return Enrolled(added, known, bad)


def _faces(
    source: RecordSource, prepare: Prepare, gallery: Gallery
) -> Iterator[tuple[Record | RejectedRecord, str, tuple | str | None]]:
    """Each photo, its digest and its face; why it is left out; None: it is there."""
    taken: dict[str, str] = {}  # digest -> photo, of those that may not be stored yet
    for record in source.read(0):
        if isinstance(record, RejectedRecord):
            yield record, "", record.reason
            continue
        digest = hashlib.sha256(record.image).hexdigest()
        same = gallery.photo_with(digest) or taken.get(digest)
        if same == record.key:
            face = None
        elif same is not None:
            face = f"it is the same file as {same}; enroll it once"
        elif gallery.has_photo(record.key):
            face = "another photo of this name is enrolled; rename it"
        else:
            face = prepare(record.image)
            if not isinstance(face, str):
                taken[digest] = record.key
        yield record, digest, face


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--patches", choices=KINDS, default="bfloat16", help="how patches are kept")
    add(
        "--on_error",
        choices=ON_ERROR,
        default="fail",
        help="at a photo that cannot be enrolled",
    )
    add("--remove", default="", help="people to remove, separated by commas")
    run(parser, _main, arguments)


def _main(options: argparse.Namespace) -> None:
    if bool(options.photos) == bool(options.remove):
        raise ValueError(
            "enroll needs either --photos, a folder per person, or --remove names"
        )
    if options.remove:
        _remove(options.gallery, options.remove.split(","))
        return
    source = open_image_folder(options.photos)
    encoder = read_encoder(options)
    prepare = read_prepare(options, encoder)
    model = describe_model(encoder, options.patches)
    with Gallery(options.gallery, create=model) as gallery:
        done = enroll(gallery, source, encoder, prepare, on_error=options.on_error)
        for name, reason in done.bad.items():
            sys.stderr.write(f"left out: {name}: {reason}\n")
        sys.stdout.write(
            f"{done.added} photos added, {done.known} were there, {len(done.bad)} left "
            f"out; {options.gallery} holds {len(gallery)} photos of "
            f"{len(gallery.people())} people\n"
        )


def _remove(path: str, names: Sequence[str]) -> None:
    with Gallery(path) as gallery:
        count = gallery.remove_people(names)
        sys.stdout.write(
            f"removed: {len(names)} people, {count} photos; {len(gallery)} photos "
            "remain\n"
        )


if __name__ == "__main__":
    main()
