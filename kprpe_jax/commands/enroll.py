"""Add people to a gallery.

    kprpe-jax enroll --gallery people.gallery --photos FOLDER \\
        --model mobilefacenet:mobilefacenet.npz \\
        --detector retinaface_mnet025:retinaface_mnet025.npz

A folder of folders is a folder per person; in a flat folder the person is the file's
name without its ending and its number (Ann_Example_0001.jpg); a video shows one person.
A killed command goes on when it is run again: photos that are there are passed over.
--fusion makes one entry of all photos and videos of a person; an entry of the same
files is passed over, one of others is replaced. --features takes files that `embed` or
`fuse` wrote in place of photos.
"""

import argparse
import sys
from typing import Any

from kprpe_jax.commands import options as shared
from kprpe_jax.commands.galleries import (
    check_output,
    close_account,
    count,
    load_gallery_networks,
    say_notes,
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
    files.add_argument(
        "--left-out",
        metavar="FILE.csv",
        help="where to list what was left out and why, beside stderr",
    )
    networks = parser.add_argument_group("faces")
    shared.add_model(networks, of_gallery=True)
    shared.add_style_maps(networks)
    shared.add_fusion(
        networks,
        "one entry a person; without, that of the gallery, or an entry a photo",
    )
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
    from kprpe_jax.data.read_photos import find_photos
    from kprpe_jax.gallery.enroll_features import first_fusion
    from kprpe_jax.gallery.gallery import Gallery
    from kprpe_jax.gallery.metadata import read_metadata
    from kprpe_jax.gallery.networks import load_gallery_fusion

    metadata = read_metadata(options.metadata) if options.metadata else {}
    check_output("--left-out", options.left_out)
    if (options.photos is None) == (options.features is None):
        raise ValueError("give either --photos or --features.")
    if options.features is not None and options.fusion is not None:
        raise ValueError(
            "--fusion fuses --photos; --features are fused already, or a photo each."
        )
    if options.photos is not None:
        # Once, and before a gallery is made.
        options.photos = find_photos(options.photos)
    networks = load_gallery_networks(options)
    if options.features is None:
        fusion, source = load_gallery_fusion(
            options.gallery, networks.recognizer, options.fusion
        )
    else:
        fusion, source = None, first_fusion(options.features)
    header = networks.header(options.patches, source)
    with Gallery(options.gallery, create=header) as gallery:
        if fusion is not None:
            left_out, used, people = _enroll_fused(options, gallery, networks, fusion)
        else:
            left_out, used, people = _enroll(options, gallery, networks)
        known = gallery.people()
        gallery.set_metadata({name: x for name, x in metadata.items() if name in known})
        for person in sorted(metadata.keys() - known):
            sys.stderr.write(f"--metadata: {person!r} is not enrolled\n")
        noun = ("photo",) if source is None else ("entry", "entries")
        close_account(
            left_out,
            *people,
            f"{options.gallery} holds {count(len(gallery), *noun)} of "
            f"{count(len(known), 'person', 'people')}",
            table=options.left_out,
            **used,
        )


# What was left out, what was used, and what else the last line tells.
_Result = tuple[list[Any], dict[str, int], tuple[str, ...]]


def _enroll(options: argparse.Namespace, gallery: Any, networks: Any) -> _Result:
    """Enroll photos or features."""
    from kprpe_jax.gallery.enroll import enroll
    from kprpe_jax.gallery.enroll_features import enroll_features

    if options.features is not None:
        result = enroll_features(gallery, options.features, on_error=options.on_error)
    else:
        result = enroll(
            gallery,
            options.photos,
            networks.recognizer,
            networks.detector,
            **_settings(options),
        )
    say_notes(result.notes)
    return result.left_out, dict(added=result.added, enrolled_before=result.known), ()


def _enroll_fused(
    options: argparse.Namespace, gallery: Any, networks: Any, fusion: Any
) -> _Result:
    """Enroll fused people, and say of whom the entries are."""
    from kprpe_jax.gallery.enroll_fused import enroll_fused

    result = enroll_fused(
        gallery,
        options.photos,
        networks.recognizer,
        fusion,
        networks.detector,
        **_settings(options),
    )
    say_notes(result.notes)
    for person, (before, now) in result.replaced.items():
        sys.stdout.write(
            f"replaced: {person}, {count(before, 'image')}, by {count(now, 'image')}\n"
        )
    for person in result.without:
        sys.stderr.write(f"without a usable photo: {person}\n")
    parts = (len(x) for x in (result.added, result.known, result.replaced))
    added, known, replaced = parts
    given = added + known + replaced + len(result.without)
    people = (
        f"{count(given, 'person', 'people')}: {added} added, {known} enrolled before, "
        f"{replaced} replaced, {len(result.without)} without a usable photo"
    )
    used = dict(used=result.used, enrolled_before=sum(result.known.values()))
    return result.left_out, used, (people,)


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """What both ways to enroll photos take."""
    return dict(
        faces=options.faces,
        on_error=options.on_error,
        batch_size=options.batch_size,
        progress=show_progress,
    )
