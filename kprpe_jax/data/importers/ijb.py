"""IJB-B and IJB-C as the field passes them on: crops and lists.

The folder holds `loose_crop/` with the images and `meta/` with lists whose names begin
with the set's: *_face_tid_mid.txt (image, template, media), *_name_5pts_score.txt
(image, five points in pixels, score), *_template_pair_label.txt (template, template,
1 = same person) and, for 1:N, *_1N_*.csv (template, subject, ...).
"""

import glob
import math
import os
from collections.abc import Iterator

import numpy as np

from kprpe_jax.data.importers.landmarks import read_landmarks
from kprpe_jax.data.importers.record import (
    NO_IDENTITY,
    Record,
    RecordSource,
    RejectedRecord,
    file_state,
    read_image,
)
from kprpe_jax.data.importers.tables import (
    is_number,
    malformed,
    read_numbers,
    split_lines,
)

DETECTION_SCORE = "detection_score"


def open_ijb(folder: str | os.PathLike) -> RecordSource:
    """Open IJB-B or IJB-C.

    Args:
      folder: it holds `meta` and `loose_crop`.
    Returns: a source with keys "1.jpg", ..., the fields `template`, `media` and
      `detection_score` (float32 in [0, 1], 0 where the list does not name the image),
      the landmark list, and the tables `pair_template1`, `pair_template2` int64 [P],
      `pair_same` bool [P], and per 1:N list `<list>_template`, `<list>_subject`
      int64 [M], as "gallery_G1_template". Only the 1:N lists give identities.
    Raises: ValueError: a missing or malformed list.
    """
    folder = os.fspath(folder)
    meta = os.path.join(folder, "meta")
    media_path = _one(meta, "*_face_tid_mid.txt")
    names, templates, media = read_media(media_path)
    landmark_path = _one(meta, "*_name_5pts_score.txt")
    scores = read_scores(landmark_path)
    pair_path = _one(meta, "*_template_pair_label.txt")
    lists = sorted(glob.glob(os.path.join(glob.escape(meta), "*_1N_*.csv")))
    tables = read_pairs(pair_path)
    for path in lists:
        name = os.path.basename(path).split("_1N_", 1)[1].removesuffix(".csv")
        table = read_subjects(path)
        tables |= {f"{name}_template": table[0], f"{name}_subject": table[1]}

    def read(start: int) -> Iterator[Record | RejectedRecord]:
        seen = set(names[:start])
        for row in range(start, len(names)):
            name = names[row]
            if name in seen:
                yield RejectedRecord(
                    name, "duplicate id", f"{media_path} names it more than once"
                )
                continue
            seen.add(name)
            image = read_image(os.path.join(folder, "loose_crop", name), name)
            fields = {
                "template": int(templates[row]),
                "media": int(media[row]),
                DETECTION_SCORE: scores.get(name, 0.0),
            }
            if isinstance(image, bytes):
                yield Record(name, image, NO_IDENTITY, fields)
            else:
                yield image

    return RecordSource(
        read,
        state=file_state(media_path, landmark_path, pair_path, *lists),
        count=len(names),
        extra={"template": int, "media": int, DETECTION_SCORE: np.float32},
        tables=tables,
        landmarks=read_landmarks(landmark_path, units="pixel"),
    )


def read_media(path: str | os.PathLike) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Read *_face_tid_mid.txt.

    Returns: image names [N]; templates and media, int64 [N] each.
    Raises: ValueError: names the file and line that is not "name number number" or
      whose name leaves the folder.
    """
    names, numbers = [], []
    for number, fields in split_lines(path, None):
        ok = len(fields) == 3 and all(is_number(f, signed=True) for f in fields[1:])
        if not ok or os.path.basename(fields[0]) != fields[0]:
            wanted = "an image name, a template and a media number"
            raise malformed(path, number, wanted, " ".join(fields))
        names.append(fields[0])
        numbers.append((int(fields[1]), int(fields[2])))
    if not names:
        raise malformed(path, 1, "an image name, a template and a media number", "")
    table = np.array(numbers, np.int64)
    return names, table[:, 0], table[:, 1]


def read_scores(path: str | os.PathLike) -> dict[str, float]:
    """Read the detector's scores of *_name_5pts_score.txt, the last number of a line.

    Raises: ValueError: names the file and line without a number from 0 to 1.
    """
    scores = {}
    for number, fields in split_lines(path, None):
        try:
            scores[fields[0]] = float(fields[11])
        except (IndexError, ValueError):
            scores[fields[0]] = math.nan
        if not 0 <= scores[fields[0]] <= 1:
            wanted = "an image name, five points and a score in [0, 1]"
            raise malformed(path, number, wanted, " ".join(fields))
    return scores


def read_pairs(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read *_template_pair_label.txt.

    Returns: pair_template1, pair_template2 int64 [P] and pair_same bool [P].
    Raises: ValueError: names the file and line that is not three whole numbers, the
      last of them 0 or 1.
    """
    table = read_numbers(path, 3)
    wrong = np.flatnonzero((table[:, 2] < 0) | (table[:, 2] > 1))
    if len(wrong):
        row = int(wrong[0])
        number = next(n for i, (n, _) in enumerate(split_lines(path, None)) if i == row)
        wanted = "two templates and 0 or 1"
        raise malformed(path, number, wanted, " ".join(map(str, table[row])))
    return {
        "pair_template1": table[:, 0],
        "pair_template2": table[:, 1],
        "pair_same": table[:, 2].astype(bool),
    }


def read_subjects(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Read a 1:N gallery or probe list: a CSV of template, subject and more.

    Returns: templates and subjects, int64 [M] each, each pair once, in file order.
    Raises: ValueError: names the file and line whose first two fields are no whole
      numbers (the first line may be a header), a template of two subjects.
    """
    subjects: dict[int, int] = {}
    for number, fields in split_lines(path, ","):
        if len(fields) < 2 or not all(map(is_number, fields[:2])):
            if number == 1:
                continue
            raise malformed(path, number, "template,subject,...", ",".join(fields))
        template, subject = int(fields[0]), int(fields[1])
        if subjects.setdefault(template, subject) != subject:
            wanted = f"of subject {subjects[template]}, as template {template} above"
            raise malformed(path, number, wanted, ",".join(fields))
    if not subjects:
        raise malformed(path, 1, "template,subject,...", "no line of numbers")
    return np.array(list(subjects), np.int64), np.array(
        list(subjects.values()), np.int64
    )


def _one(folder: str, pattern: str) -> str:
    found = sorted(glob.glob(os.path.join(glob.escape(folder), pattern)))
    if len(found) != 1:
        raise ValueError(
            f"{folder} must hold one {pattern}; got "
            f"{[os.path.basename(path) for path in found] or 'none'}; fetch the lists "
            "of one set"
        )
    return found[0]
