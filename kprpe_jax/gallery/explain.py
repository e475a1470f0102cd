"""Why a photo matches: identification as one HTML page, flow or heat of the patches.

    python -m kprpe_jax.gallery.explain --gallery people.gallery \
        --photos photo.jpg --weights mobilefacenet.npz --gallery_photos PHOTOS \
        --page why.html

PHOTOS is the folder that was enrolled: a gallery keeps no pictures. Photos without
--detector must be aligned.
"""

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from kprpe_jax.core.features import Features
from kprpe_jax.data.read_photos import find_photos
from kprpe_jax.gallery.command import (
    add_ranking,
    make_parser,
    read_encoder,
    read_prepare,
    read_second_stage,
    run,
)
from kprpe_jax.gallery.encoder import Encoder
from kprpe_jax.gallery.gallery import Contents, Gallery
from kprpe_jax.gallery.identify import identify
from kprpe_jax.gallery.photos import (
    Prepare,
    embed_faces,
    read_photo,
)
from kprpe_jax.gallery.second_stage import (
    Explanation,
    SecondStage,
    earth_movers_stage,
)
from kprpe_jax.report.match_page import Candidate, Query, write_match_page


def explain_photos(
    photos: Sequence[str],
    gallery: Gallery,
    encoder: Encoder,
    prepare: Prepare,
    *,
    gallery_photos: str | os.PathLike | None = None,
    ranks: int = 5,
    second: SecondStage | None = None,
    **options: Any,
) -> list[Query]:
    """Answer photos, and show for the first ranks which patch matched which.

    Args:
      photos: paths; those without a face are left out.
      gallery: open.
      encoder: the network; the gallery's own.
      prepare: how a photo becomes a face.
      gallery_photos: folder of the enrolled photos; None: answers without pictures.
      ranks: answers of each photo, at least 1.
      second: as `identify` takes it.
      options: k and alpha of `identify`.
    Returns: what `write_match_page` takes.
    Raises: ValueError: another network's gallery; as `identify`.
    """
    gallery.check_model(encoder.name, encoder.fingerprint)
    contents, embed = gallery.read(), embed_faces(encoder)
    row_of = {name: row for row, name in enumerate(contents.photos)}
    second = earth_movers_stage() if second is None else second
    queries = []
    for path in photos:
        face = prepare(read_photo(path))
        if isinstance(face, str):
            continue
        faces = embed([face])
        (answers,) = identify(faces, contents, second=second, **options)
        first = _first_ranks(answers)
        shown = answers[:ranks]
        rows = [row_of[answer["photo"]] for answer in shown]
        reasons = _explain(second, faces, contents, rows)
        queries.append(
            Query(
                os.path.basename(path),
                _pixels(face[0]),
                encoder.grid,
                [
                    _candidate(answer, first, why, gallery_photos, prepare)
                    for answer, why in zip(shown, reasons, strict=True)
                ],
                weights=reasons[0] and reasons[0].query_heat,
            )
        )
    return queries


def _first_ranks(answers: list[dict[str, Any]]) -> dict[str, int | None]:
    """Photo -> place by cosine alone; None where nothing was ranked again."""
    again = answers[0]["patches"] is not None
    order = sorted(answers, key=lambda answer: -answer["cosine"])
    return {a["photo"]: rank if again else None for rank, a in enumerate(order, 1)}


def _explain(
    second: SecondStage, faces: Features, contents: Contents, rows: list[int]
) -> list[Explanation | None]:
    """Of the query and each of these; None without patches."""
    if contents.faces.patches is None:
        return [None] * len(rows)
    candidates = Features(
        contents.faces.embeddings[rows], np.asarray(contents.faces.patches[rows])
    )
    return second.explain(faces, candidates)


def _candidate(
    answer: dict[str, Any],
    first: dict[str, int | None],
    why: Explanation | None,
    gallery_photos: str | os.PathLike | None,
    prepare: Prepare,
) -> Candidate:
    image = None
    if gallery_photos is not None:
        # The name comes from a file: it must not lead out of the folder.
        folder = pathlib.Path(gallery_photos).resolve()
        path = (folder / answer["photo"]).resolve()
        if path.is_relative_to(folder):
            face = prepare(read_photo(os.fspath(path)))
            image = None if isinstance(face, str) else _pixels(face[0])
    scores = {name: answer[name] for name in ("score", "cosine", "patches")}
    reason = {}
    if why is not None:
        reason = dict(flow=why.flow, weights=why.heat)
        # A flow shows where each patch went. Without one there is the query's heat,
        # which differs from candidate to candidate.
        if why.flow is None:
            reason["query_weights"] = why.query_heat
    return Candidate(
        answer["person"],
        answer["photo"],
        image,
        {name: score for name, score in scores.items() if score is not None},
        first[answer["photo"]],
        **reason,
    )


def _pixels(image: np.ndarray) -> np.ndarray:
    levels = np.clip(np.round((image + 1) * 127.5), 0, 255)
    return levels.astype(np.uint8)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = make_parser(__doc__)
    add_ranking(parser)
    add = parser.add_argument
    add("--page", required=True, help="HTML file to write")
    add("--gallery_photos", help="folder of the enrolled photos, for their pictures")
    run(parser, _main, arguments)


def _main(options: argparse.Namespace) -> None:
    if options.photos is None or options.ranks < 1:
        raise ValueError(
            "explain needs --photos file or folder, and --ranks of at least 1; got "
            f"{options.photos} and {options.ranks}"
        )
    if options.gallery_photos and not os.path.isdir(options.gallery_photos):
        raise ValueError(
            f"explain: --gallery_photos must be the folder that was enrolled; got "
            f"{options.gallery_photos}"
        )
    photos = list(map(str, find_photos(options.photos)))
    with Gallery(options.gallery) as gallery:
        encoder = read_encoder(options)
        queries = explain_photos(
            photos,
            gallery,
            encoder,
            read_prepare(options, encoder),
            gallery_photos=options.gallery_photos,
            ranks=options.ranks,
            second=read_second_stage(options, gallery),
            k=options.k,
            alpha=options.alpha,
        )
    write_match_page(queries, options.page)
    left_out = len(photos) - len(queries)
    sys.stdout.write(
        f"{len(queries)} photos explained, {left_out} without a face; page: "
        f"{options.page}\n"
    )


if __name__ == "__main__":
    main()
