"""List, show, remove or replace the people of a gallery.

    kprpe-jax gallery list --gallery people.gallery
    kprpe-jax gallery show Ann --gallery people.gallery
    kprpe-jax gallery remove Ann Bob --gallery people.gallery
    kprpe-jax gallery replace Ann --photos FOLDER --gallery people.gallery
    kprpe-jax gallery replace Ann --photo Ann/1.jpg --photos NEW.jpg --gallery ...

`list` prints a line a person, `show` a line a photo. What is removed is overwritten
with zeros; `replace` takes all photos of a person, or the one that --photo names, and
is one transaction.
"""

import argparse
import sys
from typing import Any

from kprpe_jax.commands import options as shared
from kprpe_jax.commands.galleries import (
    close_account,
    count,
    load_gallery_networks,
    say_notes,
    show_progress,
)

ACTIONS = ("list", "show", "remove", "replace")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    parser.add_argument("people", nargs="*", metavar="PERSON", help="names")
    shared.add_gallery(parser)
    group = parser.add_argument_group("replace")
    shared.add_photos(group, required=False)
    group.add_argument(
        "--photo", metavar="NAME", help="only this photo, as `show` names it"
    )
    shared.add_model(group, of_gallery=True)
    shared.add_detector(group, of_gallery=True)
    shared.add_faces(group, choices=("center", "largest"))
    shared.add_on_error(group)
    shared.add_batch_size(group)


def run(options: argparse.Namespace) -> None:
    """Run the gallery command."""
    from kprpe_jax.gallery.gallery import Gallery
    from kprpe_jax.gallery.photos import name_of

    _check(options)
    with Gallery(options.gallery) as gallery:
        options.people = [
            name if gallery.has_person(name) else name_of(name)
            for name in options.people
        ]
        {"list": _list, "show": _show, "remove": _remove, "replace": _replace}[
            options.action
        ](options, gallery)


def _check(options: argparse.Namespace) -> None:
    """Raise ValueError unless the action has what it needs, and nothing more."""
    action, people = options.action, len(options.people)
    if action == "list" and people:
        raise ValueError("gallery list takes no PERSON; gallery show tells of one.")
    if action in ("show", "remove") and not people:
        raise ValueError(f"gallery {action} needs a PERSON; gallery list names all.")
    if action == "replace":
        if people != 1 or not options.photos:
            raise ValueError(
                f"gallery replace needs one PERSON and --photos; got {people} of the "
                f"first and --photos {options.photos}."
            )
    elif options.photos or options.photo or options.model or options.detector:
        raise ValueError(
            f"gallery {action} takes no --photos, --photo, --model or --detector; "
            "gallery replace does."
        )


def _list(options: argparse.Namespace, gallery: Any) -> None:
    people, header = gallery.people(), gallery.header
    noun = ("photo",) if header.fusion is None else ("entry", "entries")
    for name, number in people.items():
        sys.stdout.write(f"{name}\t{count(number, *noun)}\n")
    fused = f"; fusion: {header.fusion.name}" if header.fusion else ""
    terms = f" ({header.license})" if header.license else ""
    sys.stderr.write(
        f"{count(len(people), 'person', 'people')}, "
        f"{count(len(gallery), *noun)}; {header.recognizer.name}{terms}: "
        f"{header.input_spec.describe()}; patches: {header.patches}{fused}\n"
    )


def _show(options: argparse.Namespace, gallery: Any) -> None:
    metadata = gallery.metadata()
    for person in options.people:
        known = [f"{key}={value}" for key, value in metadata.get(person, {}).items()]
        for photo, images, added in gallery.photos_of(person):
            line = person, photo, count(images, "image"), f"{added} UTC", *known
            sys.stdout.write("\t".join(line) + "\n")


def _remove(options: argparse.Namespace, gallery: Any) -> None:
    removed = gallery.remove_people(options.people)
    sys.stdout.write(
        f"removed: {count(len(options.people), 'person', 'people')}, "
        f"{count(removed, 'photo')}; {count(len(gallery), 'photo')} remain\n"
    )


def _replace(options: argparse.Namespace, gallery: Any) -> None:
    from kprpe_jax.gallery.enroll import replace
    from kprpe_jax.gallery.enroll_fused import replace_fused
    from kprpe_jax.gallery.networks import load_gallery_fusion

    (person,) = options.people
    before = len(gallery.check_photo(person, options.photo))
    recognizer, detector, *_ = load_gallery_networks(options)
    fusion, _ = load_gallery_fusion(options.gallery, recognizer)
    how = dict(
        faces=options.faces,
        on_error=options.on_error,
        batch_size=options.batch_size,
        progress=show_progress,
    )
    given = gallery, person, options.photos, recognizer
    if fusion is not None:
        if options.photo is not None:
            raise ValueError(
                f"--photo: {options.gallery} keeps one fused entry a person; give "
                "--photos with all of them, without --photo."
            )
        result = replace_fused(*given, fusion, detector, **how)
        say_notes(result.notes)
        told = "of the same files as before"
        for _, (old, new) in result.replaced.items():
            told = f"{count(old, 'image')}, by {count(new, 'image')}"
        used = dict(used=result.used, enrolled_before=sum(result.known.values()))
        close_account(result.left_out, f"replaced: {person}, {told}", **used)
        return
    result = replace(*given, detector, photo=options.photo, **how)
    say_notes(result.notes)
    close_account(
        result.left_out,
        f"replaced: {count(before, 'photo')} of {person} by {result.added}",
        f"{count(len(gallery), 'photo')} in all",
        used=result.added,
    )
