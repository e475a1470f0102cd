"""Who is named, rightly or wrongly, in photos as they are and in altered ones.

    python -m benchmarks photos --model mobilefacenet:mobilefacenet.npz \
        --detector retinaface_mnet025:retinaface_mnet025.npz \
        --frames lfw_df_fullframe250_sample.tar

Of each person the first photo is enrolled and the second one is asked, by the library's
`enroll` and `identify` and at the threshold that these find. Half of the people are
enrolled, the other half are strangers; then the other way round. Several recognizers,
`--model runs/a0,runs/a1`, give means and standard deviations over them; `--align` takes
several, too, and `--people FILE` leaves out all but the named people, such as those
that a run was trained on.
"""

import argparse
import io
import pathlib
import sys
import tempfile
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.commands.options import add_detector, add_model
from kprpe_jax.core.checks import check_option
from kprpe_jax.core.input_spec import FRAMINGS
from kprpe_jax.data.importers.record import Record
from kprpe_jax.data.importers.tar_images import open_tar_images
from kprpe_jax.detection.detector import Detector
from kprpe_jax.gallery.calibration import FAR
from kprpe_jax.gallery.enroll import enroll
from kprpe_jax.gallery.gallery import Gallery
from kprpe_jax.gallery.header import describe_gallery
from kprpe_jax.gallery.identify import Answer, identify
from kprpe_jax.recognizers import load_detector, load_recognizer

# What is done to the photos that are asked.
ALTERED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as they are": lambda photo: photo,
    "tilted by 20": lambda photo: photo.rotate(20, Image.Resampling.BICUBIC),
    "tilted by 40": lambda photo: photo.rotate(40, Image.Resampling.BICUBIC),
    "turned by 90": lambda photo: photo.transpose(Image.Transpose.ROTATE_90),
    "turned by 180": lambda photo: photo.transpose(Image.Transpose.ROTATE_180),
    "turned by 270": lambda photo: photo.transpose(Image.Transpose.ROTATE_270),
    "blurred by sigma 2": lambda photo: photo.filter(ImageFilter.GaussianBlur(2)),
    "blurred by sigma 4": lambda photo: photo.filter(ImageFilter.GaussianBlur(4)),
    "darkened to 5 %": lambda photo: photo.point(lambda value: value // 20),
    "left half cut off": lambda photo: photo.crop(
        (photo.width // 2, 0, *photo.size)
    ),
    "noise": lambda photo: Image.fromarray(
        np.random.default_rng(np.asarray(photo).sum()).integers(
            0, 256, (*photo.size[::-1], 3), np.uint8
        )
    ),
}  # fmt: skip


def write_photos(
    archive: str, people: list[str], place: int, folder: pathlib.Path, alter: Callable
) -> None:
    """Write the first or second photo of each person, altered, a folder each."""
    for record in open_tar_images(archive).read(0):
        if not isinstance(record, Record) or record.identity not in people:
            continue
        if record.key.endswith(f"_{place + 1:04}.jpg"):
            path = folder / record.identity
            path.mkdir(parents=True, exist_ok=True)
            photo = Image.open(io.BytesIO(record.image)).convert("RGB")
            alter(photo).save(path / f"{place}.png")


def ask(
    gallery: pathlib.Path,
    photos: pathlib.Path,
    recognizer: Recognizer,
    detector: Detector,
    far: float,
) -> list[Answer]:
    """Answers of a gallery about photos."""
    with Gallery(gallery) as opened:
        return identify(opened, photos, recognizer, detector, far=far).answers


def people_of(archive: str, named: str | None) -> list[str]:
    """People of an archive, sorted; only those of a file of names, a line each."""
    records = open_tar_images(archive).read(0)
    people = {x.identity for x in records if isinstance(x, Record)}
    if named is not None:
        people &= set(pathlib.Path(named).read_text().split("\n"))
    if len(people) < 4:
        raise ValueError(f"--people: 4 or more must stand in --frames; got {people}")
    return sorted(people)


def measure(
    archive: str,
    people: list[str],
    altered: list[str],
    recognizer: Recognizer,
    detector: Detector,
    far: float,
) -> dict[str, dict[str, int]]:
    """Counts for each alteration: of the enrolled, and of strangers.

    Args:
      altered: keys of ALTERED.
    Returns: keys of `altered`; `known` and `strangers` asked, `usable` photos of the
      known, those at `rank_1` and those named `rightly`, and all named `wrongly`.
    """
    found = {
        name: dict.fromkeys(
            ("known", "usable", "rank_1", "rightly", "wrongly", "strangers"), 0
        )
        for name in altered
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        for name in altered:
            write_photos(archive, people, 1, folder / name, ALTERED[name])
        for half in (people[::2], people[1::2]):
            place = folder / half[0]
            write_photos(archive, half, 0, place / "photos", ALTERED["as they are"])
            file = place / "gallery"
            with Gallery(file, create=describe_gallery(recognizer)) as gallery:
                enroll(
                    gallery, place / "photos", recognizer, detector, on_error="skip"
                )  # fmt: skip
            for name, counts in found.items():
                for answer in ask(file, folder / name, recognizer, detector, far):
                    person = answer.photo.split("/")[0]
                    known, right = person in half, answer.person == person
                    counts["known" if known else "strangers"] += 1
                    counts["wrongly"] += answer.person is not None and not right
                    if known and answer.reason is None:
                        counts["usable"] += 1
                        counts["rank_1"] += answer.ranking[0].person == person
                        counts["rightly"] += right
    return found


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_model(parser)
    add_detector(parser, required=True)
    add = parser.add_argument
    add("--align", default=FRAMINGS[0], help=f"of {','.join(FRAMINGS)} ({FRAMINGS[0]})")
    add("--frames", required=True, help="archive of photos, two a person")
    add("--people", help="file of names, a line each: all others are left out")
    add("--altered", default=",".join(ALTERED), help="of these (all): %(default)s")
    add("--far", type=float, default=FAR, help=f"share of strangers named ({FAR})")


def run(options: argparse.Namespace) -> None:
    """Measure and print a table."""
    detector = load_detector(options.detector)
    people = people_of(options.frames, options.people)
    altered = options.altered.split(",")
    for name in altered:
        check_option("--altered", "names", name, tuple(ALTERED))
    columns = ("usable", "rank_1", "rightly", "wrongly")
    sys.stdout.write(
        f"{len(people)} known and {len(people)} strangers\n\n| align | photos | usable "
        "| rank 1 | named rightly | named wrongly |\n|---|---|---|---|---|---|\n"
    )
    for align in options.align.split(","):
        counts = [
            measure(
                options.frames,
                people,
                altered,
                load_recognizer(model).with_framing(align),
                detector,
                options.far,
            )
            for model in options.model.split(",")
        ]
        for name in altered:
            cells = [_cell([count[name][key] for count in counts]) for key in columns]
            sys.stdout.write(f"| {align} | {name} | {' | '.join(cells)} |\n")
        sys.stdout.flush()


def _cell(counts: list[int]) -> str:
    """A count, or the mean and standard deviation of several."""
    if len(counts) == 1:
        return str(counts[0])
    return f"{np.mean(counts):.1f} ± {np.std(counts, ddof=1):.1f}"
