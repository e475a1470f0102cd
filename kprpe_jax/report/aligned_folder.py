"""A folder of aligned faces with tables of their landmarks."""

import csv
import pathlib
import shutil
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from kprpe_jax.core.input_spec import to_bytes
from kprpe_jax.data.importers.record import RejectedRecord
from kprpe_jax.data.landmark_layouts import NUM_KEYPOINTS
from kprpe_jax.data.left_out import faces_left_out
from kprpe_jax.detection.photo_faces import PhotoFaces
from kprpe_jax.report.contact_sheet import plot_contact_sheet

_SHEET = (12, 10)  # rows and columns of a contact sheet
_POSE = ("yaw", "pitch", "roll")  # degrees, columns of landmarks.csv


class AlignedFolder(NamedTuple):
    """What a folder of aligned faces was made from.

    Attributes:
      photos: those with an aligned face.
      faces: written.
      left_out: photos without, and further faces that cannot be aligned.
    """

    photos: int
    faces: int
    left_out: list[RejectedRecord]


def write_aligned_folder(
    photos: Iterable[PhotoFaces],
    output: pathlib.Path,
    *,
    number_faces: bool = False,
    on_error: str = "skip",
    num_landmarks: int = 0,
) -> AlignedFolder:
    """Write aligned faces, their landmarks and what has no face into a new folder.

    The folder holds `aligned/`, the faces, that of a.jpg as a.jpg.png; `landmarks.csv`,
    five keypoints of each in fractions of its photo, and the head's pose if the
    detector sees it; `aligned_landmarks.csv`, in fractions of the aligned face, as
    `import --landmarks` reads them; contact sheets. It is written beside its
    place and moved there at the end.

    Args:
      photos: from `read_faces`.
      output: the folder.
      number_faces: for several of a photo: faces are named a.jpg_0.png, a.jpg_1.png
        ..., and a.jpg_0, a.jpg_1 ... in `landmarks.csv`.
      on_error: at a photo or face that cannot be aligned "fail", or "skip" and list it.
      num_landmarks: so many of the keypoints, the last, take the place of the five.
    Raises: ValueError: the folder exists; no photos; a photo without a face, if they
      are to fail.
    """
    if output.exists():
        raise ValueError(
            f"--output {output} must not exist yet; name another folder or remove it."
        )
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        result = _write(photos, partial, number_faces, on_error, num_landmarks)
        partial.rename(output)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return result


def _write(
    photos: Iterable[PhotoFaces],
    folder: pathlib.Path,
    number_faces: bool,
    on_error: str,
    num_landmarks: int,
) -> AlignedFolder:
    # Photo, its name and points, those of the face, score, pose of each face.
    rows: list[_FaceRow] = []
    left_out: list[RejectedRecord] = []
    total = used = 0
    for photo in photos:
        total += 1
        if photo.reasons and on_error == "fail":
            raise ValueError(
                f"{photo.name}: {photo.reasons[0]}; remove it, or pass --on-error skip."
            )
        used += bool(photo.faces)
        left_out += faces_left_out(photo, photo.name)
        rows += _write_faces(photo, folder / "aligned", number_faces, num_landmarks)
    if not total:
        raise ValueError("there must be photos to align; got none.")
    rows.sort(key=lambda row: row.face)
    count = num_landmarks or NUM_KEYPOINTS
    header = ["name", *(f"{axis}{i}" for i in range(count) for axis in "xy"), "score"]
    photo_header = header + list(_POSE if any(r.pose for r in rows) else ())
    table = [[r.photo, *_cells(r.points), r.score, *r.pose] for r in rows]
    _write_csv(folder / "landmarks.csv", photo_header, table)
    table = [[r.face, *_cells(r.face_points), r.score] for r in rows]
    _write_csv(folder / "aligned_landmarks.csv", header, table)
    _draw_sheets(folder, [(row.face, row.face_points) for row in rows])
    return AlignedFolder(used, len(rows), left_out)


class _FaceRow(NamedTuple):
    """A face of the tables: in the photo and in the aligned image; pose or ()."""

    photo: str
    points: np.ndarray
    face: str
    face_points: np.ndarray
    score: float
    pose: tuple[float, ...]


def _cells(points: np.ndarray) -> np.ndarray:
    return points.ravel().round(6)


def _write_faces(
    photo: PhotoFaces, folder: pathlib.Path, number_faces: bool, num_landmarks: int
) -> Iterator[_FaceRow]:
    chosen = slice(-num_landmarks, None) if num_landmarks else slice(NUM_KEYPOINTS)
    for i, face in enumerate(photo.faces):
        # The photo's ending is kept: there may be a.jpg and a.png.
        face_name = f"{photo.name}_{i}" if number_faces else photo.name
        name = f"{face_name}.png"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(to_bytes(face.image)).save(path)
        pose = () if photo.poses is None else photo.poses[i]
        pose = tuple(round(float(degrees), 2) for degrees in pose)
        yield _FaceRow(
            face_name,
            photo.keypoints[i][chosen],
            name,
            face.keypoints[chosen],
            photo.scores[i],
            pose,
        )


def _write_csv(path: pathlib.Path, header: list[str], rows: Iterable) -> None:
    # A name that is no UTF-8 keeps its bytes, so that it fits the file.
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _draw_sheets(folder: pathlib.Path, faces: list[tuple[str, np.ndarray]]) -> None:
    """Draw the aligned faces with their keypoints, page by page."""
    page = _SHEET[0] * _SHEET[1]
    for number, start in enumerate(range(0, len(faces), page)):
        shown = faces[start : start + page]
        images = [np.asarray(Image.open(folder / "aligned" / n)) for n, _ in shown]
        points = [p for _, p in shown]
        empty = -len(shown) % _SHEET[1]
        images += [np.full_like(images[0], 255)] * empty
        points += [np.full_like(points[0], np.nan)] * empty
        grid = (-1, _SHEET[1])
        plot_contact_sheet(
            np.stack(images).reshape(*grid, *images[0].shape),
            folder / f"contact_sheet_{number:03d}.png",
            points=np.stack(points).reshape(*grid, *points[0].shape),
        )
