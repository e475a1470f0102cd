"""Who is named, rightly or wrongly, in photos as they are and in altered ones.

    python -m benchmarks photos --model mobilefacenet:mobilefacenet.npz \
        --detector retinaface_mnet025:retinaface_mnet025.npz \
        --frames lfw_df_fullframe250_sample.tar

Of each person the first photo is enrolled and the second one is asked, by the library's
`enroll` and `identify` and at the threshold that these find. Half of the people are
enrolled, the other half are strangers; then the other way round.
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
from kprpe_jax.commands.options import add_align, add_detector, add_model
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
    "turned by 90": lambda photo: photo.transpose(Image.Transpose.ROTATE_90),
    "turned by 180": lambda photo: photo.transpose(Image.Transpose.ROTATE_180),
    "turned by 270": lambda photo: photo.transpose(Image.Transpose.ROTATE_270),
    "blurred, sigma 2": lambda photo: photo.filter(ImageFilter.GaussianBlur(2)),
    "blurred, sigma 4": lambda photo: photo.filter(ImageFilter.GaussianBlur(4)),
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


def measure(
    archive: str, recognizer: Recognizer, detector: Detector, far: float
) -> dict[str, dict[str, int]]:
    """Counts for each alteration: of the enrolled, and of strangers.

    Returns: keys of ALTERED; `known` and `strangers` asked, `usable` photos of the
      known, those at `rank_1` and those named `rightly`, and all named `wrongly`.
    """
    found = {
        name: dict.fromkeys(
            ("known", "usable", "rank_1", "rightly", "wrongly", "strangers"), 0
        )
        for name in ALTERED
    }
    records = open_tar_images(archive).read(0)
    people = sorted({x.identity for x in records if isinstance(x, Record)})
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        for name, alter in ALTERED.items():
            write_photos(archive, people, 1, folder / name, alter)
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
    add_align(parser)
    add = parser.add_argument
    add("--frames", required=True, help="archive of photos, two a person")
    add("--far", type=float, default=FAR, help=f"share of strangers named ({FAR})")


def run(options: argparse.Namespace) -> None:
    """Measure and print a table."""
    recognizer = load_recognizer(options.model).with_framing(options.align)
    detector = load_detector(options.detector)
    sys.stdout.write(
        "| photos | usable | rank 1 | named rightly | strangers | named wrongly |\n"
        "|---|---|---|---|---|---|\n"
    )
    for name, x in measure(options.frames, recognizer, detector, options.far).items():
        sys.stdout.write(
            f"| {name} | {x['usable']} of {x['known']} | {x['rank_1']} | "
            f"{x['rightly']} | {x['strangers']} | {x['wrongly']} |\n"
        )
