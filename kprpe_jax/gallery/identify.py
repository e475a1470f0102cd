"""Who is on a photo: ranked answers from a gallery, as a table and as JSON.

    python -m kprpe_jax.gallery.identify --gallery people.gallery \
        --photos photo.jpg --weights mobilefacenet.npz --detector retinaface.npz

Photos without --detector must be aligned.
"""

import argparse
import json
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
from kprpe_jax.gallery.photos import (
    Prepare,
    embed_faces,
    read_photo,
)
from kprpe_jax.gallery.second_stage import SecondStage, earth_movers_stage
from kprpe_jax.matching.nearest import Ranking
from kprpe_jax.matching.two_stage import first_stage, rank_again

BATCH = 32
DEPTH = 100  # of the second stage, unless told


def identify(
    faces: Features,
    contents: Contents,
    *,
    k: int | None = None,
    alpha: float = 0.7,
    second: SecondStage | None = None,
) -> list[list[dict[str, Any]]]:
    """Ranked answers for queries of the gallery's own network.

    Args:
      faces: [Q, ...].
      contents: of the gallery.
      k: candidates of the second stage; None: 100, or all where there are fewer; 0, or
        a gallery without patches: no second stage.
      alpha: share of the second stage's score.
      second: None: the earth mover's distance.
    Returns: for each query a list of answers, best first: rank, person, photo, score,
      and the scores of the stages, cosine and patches (None without a second stage).
    Raises: ValueError: as `two_stage`.
    """
    size = len(contents.photos)
    if not 0 <= alpha <= 1 or (k is not None and not 0 <= k <= size):
        raise ValueError(
            f"identify: alpha must lie in [0, 1] and k in [0, {size}], the size of the "
            f"gallery; got {alpha} and {k}."
        )
    depth = min(DEPTH, size) if k is None else k
    first = first_stage(faces, contents.faces, ranks=max(depth, 1))
    if not depth or contents.faces.patches is None:
        return _answers(contents, first, first, None)
    second = earth_movers_stage() if second is None else second
    patches = second.compare(faces, contents.faces, first.rows)
    ranking = rank_again(first, patches, alpha)
    return _answers(contents, ranking, first, patches)


def _answers(
    contents: Contents, ranking: Ranking, first: Ranking, patches: np.ndarray | None
) -> list[list[dict[str, Any]]]:
    answers = []
    for query, rows in enumerate(ranking.rows):
        place = {int(row): i for i, row in enumerate(first.rows[query])}
        answers.append(
            [
                {
                    "rank": rank,
                    "person": contents.people[row],
                    "photo": contents.photos[row],
                    "score": float(ranking.scores[query, rank - 1]),
                    "cosine": float(first.scores[query, place[int(row)]]),
                    "patches": None
                    if patches is None
                    else float(patches[query, place[int(row)]]),
                }
                for rank, row in enumerate(rows, 1)
            ]
        )
    return answers


def identify_photos(
    photos: Sequence[str],
    gallery: Gallery,
    encoder: Encoder,
    prepare: Prepare,
    **options: Any,
) -> list[dict[str, Any]]:
    """Answer each photo; one without a face has `error` in place of `answers`.

    Args:
      photos: paths.
      gallery: open.
      encoder: the network; the gallery's own.
      prepare: how a photo becomes a face.
      options: of `identify`.
    Raises: ValueError: another network's gallery; as `identify`.
    """
    gallery.check_model(encoder.name, encoder.fingerprint)
    contents, embed = gallery.read(), embed_faces(encoder)
    results = []
    for start in range(0, len(photos), BATCH):
        part = photos[start : start + BATCH]
        faces = [prepare(read_photo(path)) for path in part]
        seen = [face for face in faces if not isinstance(face, str)]
        answers = iter(identify(embed(seen), contents, **options) if seen else ())
        for path, face in zip(part, faces, strict=True):
            if isinstance(face, str):
                results.append({"query": path, "error": face})
            else:
                results.append({"query": path, "answers": next(answers)})
    return results


def table(results: Sequence[dict[str, Any]], ranks: int) -> str:
    """The first answers of each photo, in columns."""
    lines = []
    for result in results:
        lines.append(result["query"])
        if "error" in result:
            lines.append(f"  {result['error']}")
            continue
        answers = result["answers"][:ranks]
        width = max(len(answer["person"]) for answer in answers)
        lines.append(f"  rank  {'person':<{width}}  score   cosine  patches  photo")
        for answer in answers:
            patches = answer["patches"]
            shown = "      -" if patches is None else f"{patches:7.4f}"
            lines.append(
                f"  {answer['rank']:4}  {answer['person']:<{width}}  "
                f"{answer['score']:6.4f}  {answer['cosine']:6.4f}  {shown}  "
                f"{answer['photo']}"
            )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = make_parser(__doc__)
    add_ranking(parser)
    parser.add_argument("--output", help="JSON file to write, with all answers")
    run(parser, _main, arguments)


def _main(options: argparse.Namespace) -> None:
    if options.photos is None or options.ranks < 1:
        raise ValueError(
            "identify needs --photos file or folder, and --ranks of at least 1; got "
            f"{options.photos} and {options.ranks}"
        )
    photos = list(map(str, find_photos(options.photos)))
    with Gallery(options.gallery) as gallery:
        encoder = read_encoder(options)
        results = identify_photos(
            photos,
            gallery,
            encoder,
            read_prepare(options, encoder),
            k=options.k,
            alpha=options.alpha,
            second=read_second_stage(options, gallery),
        )
    if options.output is not None:
        pathlib.Path(options.output).write_text(json.dumps(results, indent=1) + "\n")
    sys.stdout.write(table(results, options.ranks))
    if all("error" in result for result in results):
        raise ValueError(f"identify: none of {len(results)} photos could be answered")


if __name__ == "__main__":
    main()
