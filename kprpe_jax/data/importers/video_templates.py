"""Templates made of video frames, as in IJB-S: a CSV and a folder of frames per media.

Lines of the CSV are "template,subject,media,frames" after a header of these words;
frames are numbers and ranges, separated by semicolons: "3;10-25". A line adds frames to
its template; a template has one subject and any number of lines. The frame n of a media
is the image in its folder whose name is that number: 12.jpg or 000012.png.
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from kprpe_jax.data.importers.record import (
    Record,
    RecordSource,
    RejectedRecord,
    file_state,
    read_image,
)
from kprpe_jax.data.importers.tables import is_number, malformed, split_lines

_HEADER = ["template", "subject", "media", "frames"]


class VideoTemplates(NamedTuple):
    """One row per frame of a template.

    Attributes:
      template: int64 [N].
      subject: int64 [N].
      media: list [N], the media's name.
      frame: int64 [N], the frame's number.
    """

    template: np.ndarray
    subject: np.ndarray
    media: list[str]
    frame: np.ndarray


def open_video_templates(
    path: str | os.PathLike, *, root: str | os.PathLike | None = None
) -> RecordSource:
    """Open the frames of video templates.

    Args:
      path: the CSV.
      root: folder of the media's folders; None = the CSV's.
    Returns: a source with keys "template/media/frame", the subject as identity, the
      fields `template`, `media` and `frame`, and the table `video_template` int64 [T],
      every template that the CSV names, with readable frames or without. A frame in two
      templates is two records.
    Raises: ValueError: as `read_video_templates`.
    """
    rows = read_video_templates(path)
    root = os.fspath(root or os.path.dirname(os.path.abspath(path)))

    def read(start: int) -> Iterator[Record | RejectedRecord]:
        media, frames = None, {}
        seen = set(zip(rows.template[:start], rows.media, rows.frame, strict=False))
        for row in range(start, len(rows.media)):
            if media != rows.media[row]:
                media = rows.media[row]
                frames = _frame_files(os.path.join(root, media))
            place = (rows.template[row], media, rows.frame[row])
            key = "/".join(map(str, place))
            if place in seen:
                yield RejectedRecord(
                    key, "duplicate id", "an earlier line names the same frame"
                )
                continue
            seen.add(place)
            if rows.frame[row] not in frames:
                yield RejectedRecord(key, "missing image", f"{root} has no such frame")
                continue
            image = read_image(frames[rows.frame[row]], key)
            if isinstance(image, RejectedRecord):
                yield image
                continue
            fields = {"template": int(place[0]), "media": media, "frame": int(place[2])}
            yield Record(key, image, int(rows.subject[row]), fields)

    return RecordSource(
        read,
        state=file_state(path),
        count=len(rows.media),
        extra={"template": int, "media": str, "frame": int},
        tables={"video_template": np.unique(rows.template)},
    )


def read_video_templates(path: str | os.PathLike) -> VideoTemplates:
    """Read the CSV.

    Returns: one row per frame, in file order.
    Raises: ValueError: names the file and line that has another header, another form,
      a media that leaves its folder or a template with two subjects.
    """
    templates, subjects, media, frames = [], [], [], []
    subject_of: dict[int, int] = {}
    for number, fields in split_lines(path, ","):
        if number == 1:
            if fields != _HEADER:
                raise malformed(path, 1, repr(",".join(_HEADER)), ",".join(fields))
            continue
        line = _parse(fields)
        if line is None:
            wanted = "template,subject,media,frames as in '7,3,video_2,3;10-25'"
            raise malformed(path, number, wanted, ",".join(fields))
        template, subject, numbers = line
        if subject_of.setdefault(template, subject) != subject:
            wanted = f"of subject {subject_of[template]}, as template {template} above"
            raise malformed(path, number, wanted, ",".join(fields))
        templates += [template] * len(numbers)
        subjects += [subject] * len(numbers)
        media += [fields[2]] * len(numbers)
        frames += numbers
    if not frames:
        raise malformed(path, 2, "template,subject,media,frames", "nothing")
    return VideoTemplates(
        np.array(templates, np.int64),
        np.array(subjects, np.int64),
        media,
        np.array(frames, np.int64),
    )


def _parse(fields: list[str]) -> tuple[int, int, list[int]] | None:
    """Return template, subject and frames of a line; None where it is malformed."""
    if len(fields) != 4 or not all(map(is_number, fields[:2])):
        return None
    if not fields[2] or os.path.isabs(fields[2]) or ".." in fields[2].split("/"):
        return None
    frames: list[int] = []
    for part in fields[3].split(";"):
        ends = part.strip().split("-")
        if len(ends) > 2 or not all(map(is_number, ends)):
            return None
        first, last = int(ends[0]), int(ends[-1])
        # A range without end would fill the memory: a day has 5 million frames.
        if not 0 <= last - first < 10**7:
            return None
        frames += range(first, last + 1)
    return int(fields[0]), int(fields[1]), frames


def _frame_files(folder: str) -> dict[int, str]:
    """Path of each frame by its number."""
    if not os.path.isdir(folder):
        return {}
    stems = ((os.path.splitext(name)[0], name) for name in os.listdir(folder))
    return {
        int(stem): os.path.join(folder, name) for stem, name in stems if is_number(stem)
    }
