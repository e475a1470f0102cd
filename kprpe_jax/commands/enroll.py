"""Add people to a gallery.

    kprpe-jax enroll --gallery people.gallery --photos FOLDER \\
        --model mobilefacenet:mobilefacenet.npz \\
        --detector retinaface_mnet025:retinaface_mnet025.npz

A folder of folders is a folder per person; in a flat folder the person is the file's
name without its ending and its number (Ann_Example_0001.jpg); a video shows one person.
A killed command goes on when it is run again: photos that are there are passed over.
--features takes files that `embed` or `fuse` wrote in place of photos.
"""

import argparse
import sys

from kprpe_jax.commands import options as shared
from kprpe_jax.commands.galleries import (
    count,
    load_gallery_networks,
    say_notes,
    say_skipped,
    show_progress,
)

PATCHES = ("float32", "bfloat16", "int8", "none")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    files = parser.add_argument_group("input and output")
    shared.add_gallery(files)
    shared.add_photos(files, required=False)
    files.add_argument(
        "--features",
        metavar="PATH",
        help="in place of photos: a file of `embed` or `fuse`, or a folder of them; "
        "without patches for a gallery of --patches none",
    )
    files.add_argument(
        "--metadata",
        metavar="FILE.csv",
        help="of people: a column `person`, and others that are kept beside them",
    )
    shared.add_on_error(files)
    networks = parser.add_argument_group("faces")
    shared.add_model(networks, of_gallery=True)
    shared.add_detector(networks, of_gallery=True)
    shared.add_faces(networks, choices=("center", "largest"))
    shared.add_align(networks, of_gallery=True)
    networks.add_argument(
        "--patches",
        choices=PATCHES,
        help="how a new gallery keeps patches (bfloat16)",
    )
    shared.add_batch_size(networks)


def run(options: argparse.Namespace) -> None:
    """Run the enroll command."""
    from kprpe_jax.gallery.enroll import enroll
    from kprpe_jax.gallery.enroll_features import enroll_features
    from kprpe_jax.gallery.gallery import Gallery
    from kprpe_jax.gallery.metadata import read_metadata
    from kprpe_jax.gallery.photos import list_photos

    metadata = read_metadata(options.metadata) if options.metadata else {}
    if (options.photos is None) == (options.features is None):
        raise ValueError("give either --photos or --features.")
    if options.photos is not None:
        list_photos(options.photos)  # a wrong path makes no gallery
    networks = load_gallery_networks(options)
    header = networks.header(options.patches)
    with Gallery(options.gallery, create=header) as gallery:
        if options.features is not None:
            result = enroll_features(
                gallery, options.features, on_error=options.on_error
            )
        else:
            result = enroll(
                gallery,
                options.photos,
                networks.recognizer,
                networks.detector,
                faces=options.faces,
                on_error=options.on_error,
                batch_size=options.batch_size,
                progress=show_progress,
            )
        known = gallery.people()
        gallery.set_metadata({name: x for name, x in metadata.items() if name in known})
        say_skipped(result.skipped.items())
        say_notes(result.notes)
        for person in sorted(metadata.keys() - known):
            sys.stderr.write(f"--metadata: {person!r} is not enrolled\n")
        given = result.added + result.known + len(result.skipped)
        sys.stdout.write(
            f"{count(given, 'photo')}: {result.added} added, {result.known} enrolled "
            f"before, {len(result.skipped)} skipped; {options.gallery} holds "
            f"{count(len(gallery), 'photo')} of "
            f"{count(len(known), 'person', 'people')}\n"
        )
