"""Fuse the photos or videos of each person into one embedding.

    kprpe-jax fuse --photos PEOPLE --output embeddings --fusion average \\
        --model mobilefacenet:mobilefacenet.npz \\
        --detector retinaface_mnet025:retinaface_mnet025.npz

PEOPLE holds a folder of photos or a video of each person. Photos are read and fused in
batches: memory does not grow with their number. Writes PERSON.npz, the features of one
person with the number of images, the recognizer and its contract. With --keep-state a
stream can continue on another day: give --resume and that day's photos alone, as a
photo that comes twice counts twice.
"""

import argparse
import pathlib
import sys

from kprpe_jax.commands import options as shared
from kprpe_jax.commands.galleries import (
    close_account,
    count,
    load_networks,
    say_left_out,
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    files = parser.add_argument_group("input and output")
    shared.add_photos(files)
    shared.add_output(files, "folder of the files; made if absent", required=True)
    files.add_argument(
        "--keep-state", action="store_true", help="write PERSON.state.npz, too"
    )
    files.add_argument(
        "--resume",
        action="store_true",
        help="continue from PERSON.state.npz where it is, and write it again",
    )
    shared.add_on_error(files)
    networks = parser.add_argument_group("networks")
    shared.add_model(networks, installed=True)
    shared.add_style_maps(networks)
    shared.add_fusion(networks, "how images become one", required=True)
    shared.add_detector(networks, installed=True)
    shared.add_faces(networks)
    shared.add_align(networks)
    shared.add_batch_size(networks, 64)


def run(options: argparse.Namespace) -> None:
    """Run the fuse command."""
    from kprpe_jax.commands.main import RunError
    from kprpe_jax.data.read_photos import find_photos
    from kprpe_jax.gallery.fuse import fuse_people
    from kprpe_jax.gallery.networks import fusion_source
    from kprpe_jax.recognizers import load_fusion

    given = find_photos(options.photos, may_be_none=True)
    recognizer, detector = load_networks(options)
    file = load_fusion(options.fusion, recognizer)
    if options.faces == "all":
        raise ValueError("--faces must be center or largest: one face a photo is fused")
    result = fuse_people(
        given,
        pathlib.Path(options.output),
        recognizer,
        file,
        detector,
        source=fusion_source(file, options.fusion),
        faces=options.faces,
        batch_size=options.batch_size,
        keep_state=options.keep_state,
        resume=options.resume,
        on_error=options.on_error,
    )
    for person, number in result.images.items():
        sys.stdout.write(f"{person}: {count(number, 'image')}\n")
    nobody = f" ({', '.join(result.without)})" if result.without else ""
    people = (
        f"{count(len(result.images), 'person', 'people')} fused, {len(result.without)} "
        f"without a usable photo{nobody}"
    )
    if not result.images:
        say_left_out(result.left_out)
        raise RunError(f"nobody was fused: {people}")
    close_account(
        result.left_out,
        f"{people}; in {options.output}",
        output=options.output,
        used=result.used,
    )
