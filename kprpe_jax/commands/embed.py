"""Embed the faces of photos, or of a data set.

    kprpe-jax embed --model mobilefacenet:mobilefacenet.npz --photos FOLDER \\
        --detector retinaface_mnet025:retinaface_mnet025.npz --output faces.npz
    kprpe-jax embed --model SPEC --dataset lfw:train --name lfw_features --style

Photos become one .npz file of features with the names of photos and people. A data
set of imported faces becomes a data set of features, from which set fusion and pair
matching are trained; with --degraded each photo also gives degraded copies, which
depend on seed, photo and copy alone. Both name their recognizer and input contract.
"""

import argparse
import sys

from kprpe_jax.commands import options as shared
from kprpe_jax.commands.galleries import (
    close_account,
    count,
    load_networks,
    say_left_out,
    say_notes,
    show_progress,
)

# Why a row of a data set is not embedded; the first: it is.
REASONS = {
    "used": "",
    "of nobody": "its identity is unknown",
    "of other identities": "not among --identities",
    "without keypoints": "the recognizer reads keypoints",
    "unreadable": "broken, or of another size than the first image",
    "of people with too few": "of a person with fewer than --min-images",
    "beyond --max-images": "the person has enough others",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    model = parser.add_argument_group("network")
    shared.add_model(model, installed=True)
    model.add_argument("--style", action="store_true", help="keep style statistics")
    shared.add_style_maps(model)
    model.add_argument("--patches", action="store_true", help="keep patches")
    model.add_argument(
        "--mirror",
        choices=("none", "sum"),
        default="none",
        help="sum: embeddings of a photo and its mirror image, added (none); degraded "
        "copies are never mirrored",
    )
    shared.add_batch_size(model, 64)
    photos = parser.add_argument_group("photos")
    shared.add_photos(photos, required=False)
    shared.add_detector(photos, installed=True)
    shared.add_faces(photos)
    shared.add_align(photos)
    shared.add_output(photos, "the .npz file to write")
    data = parser.add_argument_group("data set")
    data.add_argument("--dataset", metavar="NAME[:SPLIT]", help="of imported faces")
    data.add_argument("--name", help="of the data set of features to make")
    shared.add_data_dir(data)
    data.add_argument(
        "--identities",
        metavar="A:B",
        type=shared.identity_range,
        help="labels A up to but without B (all)",
    )
    data.add_argument(
        "--min-images",
        metavar="N",
        type=shared.positive,
        default=1,
        help="leave out people with fewer (1)",
    )
    data.add_argument(
        "--max-images",
        metavar="N",
        type=shared.positive,
        default=None,
        help="first photos of each person (all)",
    )
    data.add_argument(
        "--degraded",
        metavar="COPIES",
        type=shared.positive,
        default=0,
        help="also degraded copies of each photo",
    )
    data.add_argument("--seed", type=int, default=0, help="of the degradations (0)")
    shared.add_on_error(parser)


def run(options: argparse.Namespace) -> None:
    """Run the embed command."""
    of_photos = options.photos is not None
    needed = {
        True: ("--photos", ("output",), ("dataset", "name", "identities")),
        False: ("--dataset", ("dataset", "name"), ("output", "detector", "align")),
    }
    option, wanted, others = needed[of_photos]
    missing = [f"--{name}" for name in wanted if getattr(options, name) is None]
    surplus = [f"--{name}" for name in others if getattr(options, name) is not None]
    if missing or surplus:
        raise ValueError(
            "give either --photos and --output, or --dataset and --name; with "
            f"{option} {', '.join(missing) or 'nothing'} is missing and "
            f"{', '.join(surplus) or 'nothing'} has no use."
        )
    (_embed_photos if of_photos else _embed_dataset)(options)


def _embed_photos(options: argparse.Namespace) -> None:
    from kprpe_jax.commands.main import RunError
    from kprpe_jax.core.features import concatenate
    from kprpe_jax.data.feature_file import check_path, write_feature_file
    from kprpe_jax.data.left_out import faces_left_out
    from kprpe_jax.data.read_photos import find_photos
    from kprpe_jax.evaluation.feature_rows import about
    from kprpe_jax.gallery.enroll import check_skip
    from kprpe_jax.gallery.photos import embed_photos, list_photos

    check_path(options.output)
    given = find_photos(options.photos)
    recognizer, detector = load_networks(options)
    found = embed_photos(
        show_progress(list_photos(given)),
        recognizer,
        detector,
        faces=options.faces,
        batch_size=options.batch_size,
        fields=_fields(options),
        mirror=options.mirror,
    )
    names, persons, parts = [], [], []
    left_out = given.passed_over()
    notes: dict[str, str] = {}
    for photo in found:
        name = photo.name
        if photo.faces.notes:
            notes[name] = "; ".join(photo.faces.notes)
        left_out += faces_left_out(photo.faces, name)
        if photo.features is None:
            check_skip(left_out[-1], options.on_error)
            continue
        parts.append(photo.features)
        names += [name] * len(photo.faces.faces)
        persons += [photo.file.person] * len(photo.faces.faces)
    say_notes(notes)
    if not parts:
        say_left_out(left_out)
        raise RunError(
            f"none of {len(left_out)} given has a usable face; nothing was written"
        )
    write_feature_file(
        options.output,
        concatenate(parts),
        names=names,
        persons=persons,
        counts=[1] * len(names),
        about={**about(recognizer), "license": recognizer.license},
    )
    close_account(
        left_out,
        f"{count(len(names), 'face')} embedded, in {options.output}",
        output=options.output,
        used=len(parts),
    )


def _embed_dataset(options: argparse.Namespace) -> None:
    import numpy as np
    from tqdm import tqdm

    from kprpe_jax.data.faces import open_faces
    from kprpe_jax.data.features import choose_photos, write_features
    from kprpe_jax.data.importers.record import RejectedRecord
    from kprpe_jax.data.left_out import Account
    from kprpe_jax.evaluation import feature_rows

    recognizer, _ = load_networks(options, detect=False)
    source, _, split = options.dataset.partition(":")
    split = split or "train"
    faces = open_faces(options.data_dir, source, split)
    labels = np.array(faces.labels())
    kinds = list(REASONS)
    why = np.zeros(len(labels), np.int8)  # place in kinds

    def leave_out(kind: str, rows: np.ndarray) -> None:
        why[rows] = kinds.index(kind)
        labels[rows] = -1

    leave_out("of nobody", labels < 0)
    if options.identities:
        first, last = options.identities
        others = (labels >= 0) & ((labels < first) | (labels >= last))
        leave_out("of other identities", others)
    if recognizer.uses_keypoints:
        bare = (labels >= 0) & ~faces.has_keypoints()
        if bare.any() and options.on_error == "fail":
            raise ValueError(
                f"--dataset {source}: {bare.sum()} photos have no keypoints, which the "
                "recognizer reads; import them with --landmarks or --detector, or give "
                "--on-error skip."
            )
        leave_out("without keypoints", bare)
    if options.on_error == "skip":
        leave_out("unreadable", (labels >= 0) & ~faces.readable())
    known = np.flatnonzero(labels >= 0)
    enough = choose_photos(labels, min_images=options.min_images)
    photos = choose_photos(
        labels, min_images=options.min_images, max_images=options.max_images or 0
    )
    people = labels[photos]
    leave_out("of people with too few", np.setdiff1d(known, enough))
    leave_out("beyond --max-images", np.setdiff1d(enough, photos))
    counts = np.bincount(why, minlength=len(kinds)).tolist()
    account = Account(
        {"used": counts[0]}, dict(zip(kinds[1:], counts[1:], strict=True))
    )
    if not photos.size:
        raise ValueError(
            f"--dataset {source}: no photo is left: {account.describe()}; change "
            "--identities, --min-images or --on-error."
        )
    chosen, labels = faces.select(photos), people
    options_of_rows = dict(fields=_fields(options), batch_size=options.batch_size)
    bar = dict(unit=" rows", disable=not sys.stderr.isatty())
    rows = {
        "clean": feature_rows.clean_rows(
            recognizer, chosen, labels, mirror=options.mirror, **options_of_rows
        )
    }
    if options.degraded:
        rows["degraded"] = feature_rows.degraded_rows(
            recognizer,
            chosen,
            labels,
            copies=options.degraded,
            seed=options.seed,
            **options_of_rows,
        )
    copies = {"clean": 1, "degraded": options.degraded}
    identities = len(np.unique(labels))
    path = write_features(
        {
            split: tqdm(part, split, total=copies[split] * len(photos), **bar)
            for split, part in rows.items()
        },
        name=options.name,
        data_dir=options.data_dir,
        shapes=feature_rows.row_shapes(recognizer, _fields(options)),
        origin={
            **feature_rows.about(recognizer),
            "license": recognizer.license,
            "source": source,
            "split": split,
            "mirror": options.mirror,
            "copies": options.degraded,
            "seed": options.seed,
            "photos": len(photos),
            "identities": identities,
        },
    )
    copied = f", {options.degraded} degraded copies each" if options.degraded else ""
    reasons = [(kind, REASONS[kind]) for kind in kinds]
    close_account(
        (RejectedRecord(f"row {n}", *reasons[why[n]]) for n in why.nonzero()[0]),
        f"{options.name}: {len(photos)} photos of {identities} identities embedded"
        f"{copied}",
        f"in {path}",
        output=path,
        account=account,
    )


def _fields(options: argparse.Namespace) -> tuple[str, ...]:
    """The fields of Features that are kept."""
    kept = {"style": options.style or options.style_maps, "patches": options.patches}
    return ("embeddings", *(name for name, wanted in kept.items() if wanted))
