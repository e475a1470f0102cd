"""Show why photos match, patch by patch.

    kprpe-jax explain --gallery people.gallery --photos PHOTO \\
        --gallery-photos FOLDER --page why.html

Writes one HTML page. FOLDER is the folder that was enrolled: a gallery keeps no
pictures.
"""

import argparse

from kprpe_jax.commands import options as shared
from kprpe_jax.commands.galleries import (
    add_ranking,
    check_output,
    close_account,
    count,
    load_gallery_networks,
    make_matcher,
    say_left_out,
    show_progress,
)
from kprpe_jax.commands.main import RunError


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    files = parser.add_argument_group("input and output")
    shared.add_gallery(files)
    shared.add_photos(files)
    files.add_argument(
        "--page", metavar="FILE.html", required=True, help="page to write"
    )
    files.add_argument(
        "--gallery-photos",
        metavar="FOLDER",
        help="the enrolled photos, for their pictures",
    )
    files.add_argument(
        "--ranks", type=shared.positive, default=5, help="photos to show (5)"
    )
    networks = parser.add_argument_group("faces")
    shared.add_model(networks, of_gallery=True)
    shared.add_detector(networks, of_gallery=True)
    shared.add_faces(networks)
    shared.add_align(networks, of_gallery=True)
    shared.add_batch_size(networks)
    add_ranking(parser.add_argument_group("ranking"))


def run(options: argparse.Namespace) -> None:
    """Run the explain command."""
    from kprpe_jax.data.read_photos import find_photos
    from kprpe_jax.gallery.explain import explain
    from kprpe_jax.gallery.gallery import Gallery
    from kprpe_jax.report.match_page import write_match_page

    given = find_photos(options.photos)  # before anything is loaded
    check_output("--page", options.page)
    with Gallery(options.gallery) as gallery:
        recognizer, detector, *_ = load_gallery_networks(options)
        queries, used, left_out = explain(
            gallery,
            given,
            recognizer,
            detector,
            gallery_photos=options.gallery_photos,
            ranks=options.ranks,
            faces=options.faces,
            candidates=options.candidates,
            alpha=0.7 if options.alpha is None else options.alpha,
            matcher=make_matcher(options, gallery.header),
            batch_size=options.batch_size,
            progress=show_progress,
        )
    if not queries:
        say_left_out(left_out)
        raise RunError(f"none of {len(left_out)} given shows a usable face")
    write_match_page(queries, options.page)
    close_account(
        left_out,
        f"{count(len(queries), 'face')} explained; page: {options.page}",
        output=options.page,
        used=used,
    )
