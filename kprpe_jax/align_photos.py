"""Align the faces of a folder of photos, or of a video.

    python -m kprpe_jax.align_photos --source FOLDER --output FOLDER \
        --weights retinaface_mnet025.npz

Writes `aligned/`, the faces, that of a.jpg as a.jpg.png; `landmarks.csv`, five points
of each in fractions of its photo, and `aligned_landmarks.csv`, in fractions of the
aligned face, both of a form that `import_faces --landmarks` reads; `without_face.csv`,
the photos without a face or that cannot be read; contact sheets.
A video's photos are its frames, called VIDEO/000000 and so on.
"""

import csv
import pathlib
import shutil
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from absl import app, flags, logging
from PIL import Image
from tqdm import tqdm

from kprpe_jax.alignment.photos import (
    Finder,
    align_found,
    aligner_finder,
    detector_finder,
    find_in_photos,
)
from kprpe_jax.core.compile_cache import use_compile_cache
from kprpe_jax.data.read_photos import read_photos
from kprpe_jax.report.contact_sheet import plot_contact_sheet
from kprpe_jax.weights.retinaface import (
    import_weights,
    official_aligner,
    official_retinaface,
)

_SHEET = (12, 10)  # rows and columns of a contact sheet
_HEADER = ["name", *(f"{axis}{i}" for i in range(5) for axis in "xy"), "score"]

_SOURCE = flags.DEFINE_string("source", None, "Folder of photos, or a video.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder to make.")
_NETWORK = flags.DEFINE_enum(
    "network",
    "retinaface",
    ["retinaface", "aligner"],
    "retinaface finds faces anywhere; aligner wants one face that fills the photo.",
)
_WEIGHTS = flags.DEFINE_string("weights", None, "The network's official weights.")
_ALL_FACES = flags.DEFINE_bool("all_faces", False, "Every face, not the largest only.")
_MIN_SCORE = flags.DEFINE_float("min_score", 0.5, "A face must score more, 0..1.")
_MAX_SIDE = flags.DEFINE_integer(
    "max_side", 1024, "retinaface: larger photos are shrunk to find faces in them."
)
_SIZE = flags.DEFINE_list("size", ["112", "112"], "Height and width of the faces.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Photos at once.")
flags.mark_flags_as_required(["source", "output", "weights"])


def align_photos(
    photos: Iterable[tuple[str, np.ndarray | str]],
    finder: Finder,
    output: pathlib.Path,
    *,
    size: tuple[int, int] = (112, 112),
    all_faces: bool = False,
    batch_size: int = 8,
) -> dict[str, int]:
    """Align photos and write what the module says into a new folder.

    Everything is written beside it and moved there at the end.

    Args:
      photos: names, and uint8 [H, W, 3] or why a photo cannot be read.
      finder: the network.
      output: the folder.
      size: (height, width) of the faces.
      all_faces: align every face, else the largest of each photo.
      batch_size: photos at once.
    Returns: numbers of `photos`, `faces`, photos `without_face` and `unreadable` ones.
    Raises: ValueError: the folder is there already; no photos.
    """
    if output.exists():
        raise ValueError(
            f"align_photos: {output} must not be there yet; it is; choose another "
            "--output or remove it"
        )
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        counts = _write(photos, finder, partial, size, all_faces, batch_size)
        partial.rename(output)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return counts


def _write(photos, finder, folder, size, all_faces, batch_size) -> dict[str, int]:
    rejected: list[tuple[str, str]] = []
    total = 0

    def readable() -> Iterator[tuple[str, np.ndarray]]:
        nonlocal total
        for name, photo in photos:
            total += 1
            if isinstance(photo, str):
                rejected.append((name, photo))
            else:
                yield name, photo

    rows = []
    for found in find_in_photos(finder, readable(), batch_size=batch_size):
        count = len(found.keypoints) if all_faces else min(len(found.keypoints), 1)
        if not count:
            rejected.append((found.name, "no face"))
        images, points = align_found(found, size=size, faces=range(count))
        for i, image in enumerate(images):
            # Its photo's ending stays: there may be a.jpg and a.png.
            name = f"{found.name}{f'_{i}' if all_faces else ''}.png"
            path = folder / "aligned" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
            row = found.name, found.keypoints[i], name, points[i], found.scores[i]
            rows.append(row)
    unreadable = sum(reason != "no face" for _, reason in rejected)
    if not total:
        raise ValueError(
            "align_photos: the source must hold photos; got none; check it"
        )
    rows.sort(key=lambda row: row[2])
    for file, which in (("landmarks.csv", 0), ("aligned_landmarks.csv", 2)):
        table = [[r[which], *r[which + 1].ravel().round(6), r[4]] for r in rows]
        _write_csv(folder / file, _HEADER, table)
    _write_csv(folder / "without_face.csv", ["name", "reason"], sorted(rejected))
    _draw_sheets(folder, [(row[2], row[3]) for row in rows])
    return {
        "photos": total,
        "faces": len(rows),
        "without_face": len(rejected) - unreadable,
        "unreadable": unreadable,
    }


def _write_csv(path: pathlib.Path, header: list[str], rows: Iterable) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _draw_sheets(folder: pathlib.Path, faces: list[tuple[str, np.ndarray]]) -> None:
    """Draw the aligned faces with their points, page by page."""
    page = _SHEET[0] * _SHEET[1]
    for number, start in enumerate(range(0, len(faces), page)):
        shown = faces[start : start + page]
        count = -(-len(shown) // _SHEET[1]) * _SHEET[1]
        images = [np.asarray(Image.open(folder / "aligned" / n)) for n, _ in shown]
        images += [np.full_like(images[0], 255)] * (count - len(images))
        points = [p for _, p in shown] + [np.full((5, 2), np.nan)] * (
            count - len(shown)
        )
        grid = (-1, _SHEET[1])
        plot_contact_sheet(
            np.stack(images).reshape(*grid, *images[0].shape),
            folder / f"contact_sheet_{number:03d}.png",
            points=np.stack(points).reshape(*grid, 5, 2),
        )


def _make_finder() -> Finder:
    options: dict[str, Any] = dict(min_score=_MIN_SCORE.value)
    if _NETWORK.value == "aligner":
        model = official_aligner()
        return aligner_finder(model, import_weights(model, _WEIGHTS.value), **options)
    model = official_retinaface()
    variables = import_weights(model, _WEIGHTS.value)
    most = 64 if _ALL_FACES.value else 16
    return detector_finder(
        model, variables, max_faces=most, max_side=_MAX_SIDE.value, **options
    )


def main(argv: list[str]) -> None:
    """Align what the flags name and say what came of it."""
    logging.set_verbosity(logging.WARNING)
    use_compile_cache()
    try:
        if argv[1:]:
            raise ValueError(
                f"align_photos: everything is given by flags; got {argv[1:]}; see "
                "--help"
            )
        if len(_SIZE.value) != 2 or not all(
            n.isdecimal() and int(n) >= 8 for n in _SIZE.value
        ):
            raise ValueError(
                "align_photos: --size must be height,width of at least 8 pixels, such "
                "as 112,112; got "
                f"{','.join(_SIZE.value)}"
            )
        photos = read_photos(pathlib.Path(_SOURCE.value))
        counts = align_photos(
            tqdm(photos, unit=" photos", disable=not sys.stderr.isatty()),
            _make_finder(),
            pathlib.Path(_OUTPUT.value),
            size=(int(_SIZE.value[0]), int(_SIZE.value[1])),
            all_faces=_ALL_FACES.value,
            batch_size=_BATCH_SIZE.value,
        )
    except ValueError as e:
        sys.exit(f"error: {e}")
    sys.stdout.write(
        f"{counts['photos']} photos, {counts['faces']} faces aligned, "
        f"{counts['without_face']} photos without a face, {counts['unreadable']} "
        f"unreadable; in {_OUTPUT.value}\n"
    )


if __name__ == "__main__":
    app.run(main)
