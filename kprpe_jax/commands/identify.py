"""Say who the people in photos are.

    kprpe-jax identify --gallery people.gallery --photos PHOTOS --output answers.json

Each photo is asked alone; --probe folder fuses the faces of each folder or video, by
the gallery's fusion, by --fusion, or by their average.
The cosine of the embeddings ranks; with --candidates the patches of the best photos are
compared again. Strangers are unknown: --far is the share of them that a search of the
whole gallery names; the threshold for it is found from the gallery's own people.
"""

import argparse
import contextlib
import json
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from kprpe_jax.commands import options as shared
from kprpe_jax.commands.galleries import (
    CANDIDATES,
    add_ranking,
    check_output,
    close_account,
    count,
    load_gallery_networks,
    make_matcher,
    show_progress,
)
from kprpe_jax.commands.main import RunError


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    files = parser.add_argument_group("input and output")
    shared.add_gallery(files)
    shared.add_photos(files)
    shared.add_output(files, "JSON file: a list with a record per face asked")
    shared.add_on_error(files, "skip")
    files.add_argument(
        "--ranks", type=shared.positive, default=5, help="people to print (5)"
    )
    networks = parser.add_argument_group("faces")
    shared.add_model(networks, of_gallery=True)
    networks.add_argument(
        "--program",
        metavar="FOLDER",
        help="the gallery's recognizer, as `export --format stablehlo` wrote it; in "
        "place of --model",
    )
    shared.add_detector(networks, of_gallery=True)
    shared.add_faces(networks)
    shared.add_align(networks, of_gallery=True)
    networks.add_argument(
        "--probe",
        choices=("photo", "folder"),
        default="photo",
        help="one question: each photo (the default), or each folder or video",
    )
    shared.add_fusion(
        networks, "of a folder or video; without, that of the gallery, or average"
    )
    shared.add_batch_size(networks)
    ranking = parser.add_argument_group("ranking")
    ranking.add_argument(
        "--far",
        type=float,
        help="share of strangers named, 0..1 (0.02); 1 = name the best of all",
    )
    ranking.add_argument(
        "--threshold",
        type=float,
        help="in its place: a person with a lower cosine is unknown, -1..1",
    )
    add_ranking(ranking)


def run(options: argparse.Namespace) -> None:
    """Run the identify command."""
    from kprpe_jax.data.read_photos import find_photos
    from kprpe_jax.gallery.calibration import FAR
    from kprpe_jax.gallery.gallery import Gallery
    from kprpe_jax.gallery.identify import identify
    from kprpe_jax.gallery.networks import load_gallery_fusion

    given = find_photos(options.photos)  # before anything is loaded
    check_output("--output", options.output)
    if options.program is not None:
        if options.model is not None:
            raise ValueError("give either --model or --program.")
        options.model = options.program
    if options.far is not None and options.threshold is not None:
        raise ValueError("give either --far or --threshold.")
    with Gallery(options.gallery) as gallery:
        recognizer, detector, *_ = load_gallery_networks(options)
        fusion = None
        if options.probe == "folder" or options.fusion is not None:
            fusion, _ = load_gallery_fusion(options.gallery, recognizer, options.fusion)
        candidates = options.candidates
        asked = (options.alpha, options.weighting, options.solver, options.matcher)
        if candidates is None:  # an option of the second stage asks for it
            wants = any(value is not None for value in asked)
            candidates = min(CANDIDATES, len(gallery)) if wants else 0
        far = FAR if options.far is None else options.far
        matcher = make_matcher(options, gallery.header) if candidates else None
        with _record_file(options.output) as write:

            def keep(answer: Any) -> Any:
                write(answer.record())
                return answer._replace(ranking=answer.ranking[: options.ranks])

            answers, used, left_out, calibration = identify(
                gallery,
                given,
                recognizer,
                detector,
                keep=keep,
                faces=options.faces,
                probe=options.probe,
                fusion=fusion,
                threshold=options.threshold,
                far=None if far == 1 else far,
                candidates=candidates,
                alpha=0.7 if options.alpha is None else options.alpha,
                matcher=matcher,
                on_error=options.on_error,
                batch_size=options.batch_size,
                progress=show_progress,
            )
    sys.stdout.write(_table(answers))
    if calibration is not None:
        _say_threshold(calibration)
    known = sum(answer.person is not None for answer in answers)
    asked = len(answers) - sum(answer.reason is not None for answer in answers)
    noun = "face" if options.probe == "photo" else "probe"
    close_account(
        left_out,
        f"{count(asked, noun)}: {known} identified, {asked - known} unknown",
        output=options.output,
        used=used,
    )
    if not asked:
        raise RunError(f"none of {len(left_out)} given could be answered")


def _say_threshold(calibration: Any) -> None:
    """Where the threshold comes from; on stderr that there is none."""
    if calibration.threshold is None:
        sys.stderr.write(
            "warning: strangers are named, too, as nothing tells them from the people "
            f"of the gallery: {calibration.source}; give --threshold, or enroll more\n"
        )
        return
    named = ""
    if calibration.named is not None:
        named = f"; names {calibration.named:.1%} of the enrolled by their other photos"
    sys.stdout.write(
        f"threshold: cosine {calibration.threshold:.4f}, names "
        f"{calibration.far:.2g} of strangers, from {calibration.source}{named}\n"
    )


@contextlib.contextmanager
def _record_file(path: str | None) -> Iterator[Callable[[Any], None]]:
    """A function that appends a record to a JSON list, which is there whole or not.

    Args:
      path: of the file; None = none.
    """
    if path is None:
        yield lambda record: None
        return
    partial, before = pathlib.Path(f"{path}.partial"), "["
    try:
        with partial.open("w", encoding="utf-8") as file:

            def write(record: Any) -> None:
                nonlocal before
                text = json.dumps([record], indent=1, ensure_ascii=False)
                file.write(before + text[1:-2])  # without its own brackets
                before = ","

            yield write
            file.write("[]\n" if before == "[" else "\n]\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _table(answers: list[Any]) -> str:
    """The first people of each ranking, in columns."""
    lines = []
    for answer in answers:
        if answer.reason is not None:
            lines.append(f"{answer.photo}: left out: {answer.reason}")
            continue
        person = answer.person or f"unknown (cosine below {answer.threshold:.4g})"
        notes = "".join(f" ({note})" for note in answer.notes)
        lines.append(f"{answer.photo}: {person}{notes}")
        width = max(len(row.person) for row in answer.ranking)
        lines.append(f"  rank  {'person':<{width}}   score  cosine patches  photo")
        for rank, row in enumerate(answer.ranking, 1):
            patches = row.patch_similarity
            patches = "      -" if patches is None else f"{patches:7.4f}"
            lines.append(
                f"  {rank:4}  {row.person:<{width}} {row.score:7.4f} {row.cosine:7.4f} "
                f"{patches}  {row.photo}"
            )
    return "".join(line + "\n" for line in lines)
