"""Explain why photos match: what a page of matches shows."""

import os
import pathlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.features import Features, take
from kprpe_jax.core.input_spec import to_bytes
from kprpe_jax.data.importers.record import RejectedRecord
from kprpe_jax.data.left_out import faces_left_out
from kprpe_jax.data.read_photos import PhotoPath, find_photos, read_photos
from kprpe_jax.detection.detector import Detector
from kprpe_jax.detection.photo_faces import read_faces
from kprpe_jax.gallery.gallery import Gallery
from kprpe_jax.gallery.header import GalleryContents
from kprpe_jax.gallery.identify import check_candidates, make_index
from kprpe_jax.gallery.photos import BATCH, embed_photos, list_photos
from kprpe_jax.matching.matchers import EarthMoversMatcher, Explanation, Matcher
from kprpe_jax.matching.nearest import Ranking
from kprpe_jax.matching.two_stage import explain_two_stage, first_stage
from kprpe_jax.report.match_page import Candidate, Query

# Photo of the gallery -> its aligned face, uint8 [H, W, 3], or None
ReadPicture = Callable[[str], np.ndarray | None]


def explain(
    gallery: Gallery,
    photos: PhotoPath,
    recognizer: Recognizer,
    detector: Detector | None = None,
    *,
    gallery_photos: str | os.PathLike | None = None,
    ranks: int = 5,
    faces: str = "center",
    candidates: int | None = None,
    alpha: float = 0.7,
    matcher: Matcher | None = None,
    batch_size: int = BATCH,
    progress: Callable[[Sequence], Iterable] = iter,
) -> tuple[list[Query], int, list[RejectedRecord]]:
    """Rank the gallery's photos for each face, and show what matched what.

    The flows shown are those whose scores ranked.

    Args:
      gallery: open, of this recognizer.
      photos: as `photos.list_photos` takes them.
      recognizer: the network.
      detector: None = photos are aligned faces already.
      gallery_photos: folder of the enrolled photos, for their pictures; None: without.
      ranks: photos of the gallery to show for each face, at least 1.
      faces: of a photo: `center`, `largest` or `all`.
      candidates: photos whose patches are compared; None: 100, or as many as there are;
        0, or a gallery without patches: the cosine ranks alone.
      alpha, matcher: as `identify.identify`.
      batch_size: photos at once.
      progress: wraps the list of files, as tqdm does.
    Returns: what `write_match_page` takes; the photos and frames that were used; what
      else was given.
    Raises: ValueError: as `identify.identify`; ranks below 1, no such folder.
    """
    if ranks < 1:
        raise ValueError(f"--ranks must be at least 1; got {ranks}.")
    if gallery_photos is not None and not os.path.isdir(gallery_photos):
        raise ValueError(
            f"--gallery-photos must be the folder that was enrolled; got "
            f"{gallery_photos}."
        )
    gallery.check(recognizer)
    contents = gallery.read()
    size = len(contents.photos)
    if candidates is None:
        candidates = min(100, size) if contents.features.patches is not None else 0
    check_candidates(gallery, contents, candidates)
    matcher = matcher or EarthMoversMatcher(grid=gallery.header.grid)
    index = make_index(contents)
    shown = min(ranks, candidates or size)
    read = _picture_reader(gallery_photos, recognizer, detector, faces)

    def rank(query: Features) -> tuple[Ranking, Explanation | None]:
        sides = query, contents.features
        if not candidates:
            return first_stage(*sides, ranks=shown, index=index), None
        options = dict(shown=shown, k=candidates, alpha=alpha, matcher=matcher)
        return explain_two_stage(*sides, index=index, **options)

    options = dict(faces=faces, batch_size=batch_size)
    given = find_photos(photos)
    files = progress(list_photos(given))
    queries, used, left_out = [], 0, given.passed_over()
    for photo in embed_photos(files, recognizer, detector, **options):
        left_out += faces_left_out(photo.faces, photo.name)
        used += photo.features is not None
        several = len(photo.faces.faces) > 1
        for number, face in enumerate(photo.faces.faces):
            ranking, why = rank(take(photo.features, slice(number, number + 1)))
            queries.append(
                Query(
                    photo.faces.name + (f", face {number + 1}" if several else ""),
                    to_bytes(face.image),
                    gallery.header.grid,
                    _candidates(contents, ranking, why, shown, read),
                    weights=None if why is None else why.query_heat[0, 0],
                )
            )
    return queries, used, left_out


def _candidates(
    contents: GalleryContents,
    ranking: Ranking,
    why: Explanation | None,
    shown: int,
    read: ReadPicture,
) -> list[Candidate]:
    """The first ranks of the only query."""
    first = np.argsort(np.argsort(-ranking.cosine[0], kind="stable"), kind="stable") + 1
    result = []
    for rank, row in enumerate(ranking.rows[0, :shown]):
        scores = {"score": ranking.scores, "cosine": ranking.cosine}
        reason = {}
        if why is not None:
            scores["patches"] = ranking.patch_similarity
            reason = dict(weights=why.heat[0, rank], first_rank=int(first[rank]))
            # A flow shows where each patch went. Without one there is the query's heat,
            # which differs from candidate to candidate.
            if why.flow is None:
                reason["query_weights"] = why.query_heat[0, rank]
            else:
                reason["flow"] = why.flow[0, rank]
        result.append(
            Candidate(
                contents.people[row],
                contents.photos[row],
                read(contents.photos[row]),
                {name: float(x[0, rank]) for name, x in scores.items()},
                **reason,
            )
        )
    return result


def _picture_reader(
    folder: str | os.PathLike | None,
    recognizer: Recognizer,
    detector: Detector | None,
    faces: str,
) -> ReadPicture:
    """A function that aligns the enrolled photo of a name again, once each."""
    known: dict[str, np.ndarray | None] = {}
    faces = "center" if faces == "all" else faces

    def read(name: str) -> np.ndarray | None:
        if folder is None:
            return None
        if name not in known:
            known[name] = None
            # The name comes from a file: it must not lead out of the folder.
            root = pathlib.Path(folder).resolve()
            path = (root / name).resolve()
            if path.is_relative_to(root) and path.is_file():
                found = read_faces(
                    read_photos(path), recognizer.input_spec, detector, faces=faces
                )
                usable = (x.faces[0].image for x in found if x.faces)
                image = next(usable, None)
                known[name] = None if image is None else to_bytes(image)
        return known[name]

    return read
