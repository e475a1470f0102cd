"""Identify the faces of photos among the people of a gallery."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.features import Features, concatenate
from kprpe_jax.core.mesh import data_mesh
from kprpe_jax.data.importers.record import RejectedRecord
from kprpe_jax.data.read_photos import PhotoPath, find_photos
from kprpe_jax.detection.detector import Detector
from kprpe_jax.fusion.files import FusionFile
from kprpe_jax.gallery.calibration import Calibration, calibrate
from kprpe_jax.gallery.fused_photos import FUSED_FIELDS
from kprpe_jax.gallery.gallery import Gallery
from kprpe_jax.gallery.header import GalleryContents
from kprpe_jax.gallery.photos import (
    BATCH,
    FIELDS,
    EmbeddedPhoto,
    embed_photos,
    list_photos,
)
from kprpe_jax.gallery.questions import (
    empty_questions,
    folder_questions,
    note_left_out,
    photo_questions,
)
from kprpe_jax.gallery.thresholds import measured_threshold
from kprpe_jax.matching.matchers import EarthMoversMatcher, Matcher
from kprpe_jax.matching.nearest import ExactIndex, Ranking
from kprpe_jax.matching.two_stage import first_stage, two_stage

PROBES = ("photo", "folder")
_LARGE = 1 << 16  # photos
_DEPTH = 1000  # photos of a ranking, at least


class RankedPerson(NamedTuple):
    """A person of a ranking, by the best of their photos.

    Attributes:
      person, photo: who, and which photo of theirs.
      score: what ranked: the cosine, or with a second stage the mixed score.
      cosine: of the embeddings.
      patch_similarity: None = the patches were not compared.
    """

    person: str
    photo: str
    score: float
    cosine: float
    patch_similarity: float | None


class Answer(NamedTuple):
    """Who a face is, or why a photo has none.

    Attributes:
      photo: with its parent folder.
      box: (left, top, right, bottom) in pixels of the photo; None where there is none:
        aligned photos, fused ones, photos without a face.
      person: None = unknown.
      score: of the first of the ranking; None where there is no face.
      cosine: of the first of the ranking, which decides whether it is named.
      threshold: a lower cosine is a stranger's; None = the best one is named.
      far: share of strangers that the threshold names in a search; None = unknown.
      ranking: a row a person, best first; empty where there is no face.
      reason: why there is no face; None where there is one.
      metadata: of the person, if there is any.
      notes: what else is worth telling of the photo: it was turned, others are as
        large.
    """

    photo: str
    box: tuple[float, float, float, float] | None
    person: str | None
    score: float | None
    threshold: float | None
    ranking: list[RankedPerson]
    reason: str | None = None
    metadata: Mapping[str, str] | None = None
    cosine: float | None = None
    far: float | None = None
    notes: Sequence[str] = ()

    def record(self) -> dict[str, Any]:
        """As the JSON file has it."""
        ranking = [dict(person=x.person, score=x.score) for x in self.ranking]
        record = {**self._asdict(), "ranking": ranking}
        for name in ("reason", "metadata", "notes"):
            if not record[name]:
                del record[name]
        return record


class IdentifyResult(NamedTuple):
    """What was asked, and what was left out.

    Attributes:
      answers: one per face that was asked, one per photo or folder without a face.
      used: photos and frames with a face that was asked.
      left_out: everything else that was given.
      calibration: where the threshold comes from; None = none was asked for.
    """

    answers: list[Answer]
    used: int
    left_out: list[RejectedRecord]
    calibration: Calibration | None = None


def identify(
    gallery: Gallery,
    photos: PhotoPath,
    recognizer: Recognizer,
    detector: Detector | None = None,
    *,
    keep: Callable[[Answer], Answer] = lambda answer: answer,
    faces: str = "center",
    probe: str = "photo",
    fusion: FusionFile | None = None,
    threshold: float | None = None,
    far: float | None = None,
    candidates: int = 0,
    alpha: float = 0.7,
    matcher: Matcher | None = None,
    on_error: str = "skip",
    batch_size: int = BATCH,
    progress: Callable[[Sequence], Iterable] = iter,
) -> IdentifyResult:
    """Say who the people in photos are.

    Args:
      gallery: open, of this recognizer.
      photos: as `photos.list_photos` takes them.
      keep: takes each answer when it is found, and gives what is kept of it: a ranking
        has up to 1000 people.
      recognizer: the network.
      detector: None = photos are aligned faces already.
      faces: of a photo: `center`, `largest` or `all`.
      probe: what is one question: each `photo`, or all faces of a `folder` or a video.
      fusion: what makes one question of these; None = `photos.average`.
      threshold: in [-1, 1]; a best person with a lower cosine is unknown, whatever
        the score of the patches.
      far: share of strangers named, in (0, 1), in place of a threshold: `calibrate`
        finds it. Neither: the best one is named.
      candidates: photos of the gallery whose patches are compared; 0 = the cosine
        ranks alone.
      alpha: share of the patches' similarity in the score, in [0, 1].
      matcher: what compares patches; None: the earth mover's distance.
      on_error: at a photo without a usable face: `fail`, or `skip` it.
      batch_size: photos at once.
      progress: wraps the list of files, as tqdm does.
    Raises: ValueError: another recognizer's gallery, an empty one, one without the
      patches that are to be compared; a threshold or a share out of its
      range; more candidates than photos; a photo without a face with `fail`.
    """
    if probe not in PROBES:
        raise ValueError(f"--probe must be one of {', '.join(PROBES)}; got {probe!r}.")
    if threshold is not None and not -1 <= threshold <= 1:
        raise ValueError(f"--threshold must lie in [-1, 1]; got {threshold}.")
    if fusion is not None and probe != "folder":
        raise ValueError("--fusion fuses a folder or a video; give --probe folder.")
    gallery.check(recognizer)
    contents, found = gallery.read(), None
    if threshold is None and far is not None:
        found = calibrate(contents, far, measured_threshold(recognizer))
        threshold, far = found.threshold, found.far
    else:
        far = None
    given = find_photos(photos)
    files = list_photos(given)
    if probe == "folder":  # a folder's own photos stand beside each other
        files.sort(key=lambda file: file.path.parent)
    rank = make_ranker(gallery, contents, candidates, alpha, matcher)
    fields = FIELDS if fusion is None else (*FIELDS, *FUSED_FIELDS)
    options = dict(faces=faces, batch_size=batch_size, fields=fields)
    embedded = embed_photos(progress(files), recognizer, detector, **options)
    left_out = given.passed_over()
    used = 0

    def counted() -> Iterator[EmbeddedPhoto]:
        nonlocal used
        for photo in note_left_out(embedded, left_out, on_error):
            used += photo.features is not None
            yield photo

    questions = photo_questions(counted())
    if probe == "folder":
        questions = itertools.chain(
            empty_questions(given, on_error), folder_questions(counted(), fusion)
        )
    answers: list[Answer] = []
    while chunk := list(itertools.islice(questions, batch_size)):
        rows = [x.features for x in chunk if x.features is not None]
        ranking = rank(concatenate(rows)) if rows else None
        row = 0
        for question in chunk:
            answer = Answer(
                question.photo,
                question.box,
                None,
                None,
                threshold,
                [],
                far=far,
                notes=question.notes,
            )
            if question.features is None:
                answers.append(keep(answer._replace(reason=question.reason)))
                continue
            people = rank_people(contents, ranking, row)
            answer = _decide(answer, people)
            metadata = contents.metadata.get(answer.person)
            answers.append(keep(answer._replace(metadata=metadata)))
            row += 1
    return IdentifyResult(answers, used, left_out, found)


def make_ranker(
    gallery: Gallery,
    contents: GalleryContents,
    candidates: int,
    alpha: float,
    matcher: Matcher | None,
) -> Callable[[Features], Ranking]:
    """A function of queries [Q, ...] that ranks the photos of a gallery.

    Args:
      gallery, contents: open, and what it holds.
      candidates, alpha, matcher: as `identify`.
    Raises: ValueError: as `identify`.
    """
    size = len(contents.photos)
    check_candidates(gallery, contents, candidates)
    ranks = min(size, max(candidates, _DEPTH))
    options = dict(ranks=ranks, index=make_index(contents))
    if not candidates:
        return lambda queries: first_stage(queries, contents.features, **options)
    matcher = matcher or EarthMoversMatcher(grid=gallery.header.grid)
    options |= dict(k=candidates, alpha=alpha, matcher=matcher)
    return lambda queries: two_stage(queries, contents.features, **options)


def make_index(contents: GalleryContents) -> ExactIndex:
    """Index of a gallery's embeddings; a large one is shared by all devices."""
    embeddings = contents.features.embeddings
    return ExactIndex(
        embeddings, mesh=None if len(embeddings) < _LARGE else data_mesh()
    )


def check_candidates(
    gallery: Gallery, contents: GalleryContents, candidates: int
) -> None:
    """Raise ValueError unless so many photos can be compared by patches."""
    size = len(contents.photos)
    if not 0 <= candidates <= size:
        raise ValueError(
            f"--candidates must lie in [0, {size}], the photos of the gallery; got "
            f"{candidates}."
        )
    if candidates and contents.features.patches is None:
        raise ValueError(
            f"--candidates compares patches, of which {gallery.path} keeps none; "
            "enroll with --patches bfloat16, or rank with --candidates 0."
        )


def rank_people(
    contents: GalleryContents, ranking: Ranking, query: int
) -> list[RankedPerson]:
    """The people of one query's ranking of photos, each by the best photo."""
    patches, people = ranking.patch_similarity, {}
    for at, row in enumerate(ranking.rows[query]):
        person = contents.people[row]
        if row < 0 or person in people:
            continue
        similarity = None if patches is None else float(patches[query, at])
        people[person] = RankedPerson(
            person,
            contents.photos[row],
            float(ranking.scores[query, at]),
            float(ranking.cosine[query, at]),
            None if similarity is None or np.isnan(similarity) else similarity,
        )
    return list(people.values())


def _decide(answer: Answer, ranking: list[RankedPerson]) -> Answer:
    """The answer with its ranking: the best person, or nobody below the threshold."""
    best = ranking[0]
    known = answer.threshold is None or best.cosine >= answer.threshold
    return answer._replace(
        person=best.person if known else None,
        score=best.score,
        cosine=best.cosine,
        ranking=ranking,
    )
