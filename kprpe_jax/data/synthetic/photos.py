"""Photos of synthetic people as files: portraits to enroll, group photos to ask.

A group photo shows several people in a row. Heads are whole and uncovered: masks,
sunglasses, crops and low resolution are left out, whatever the difficulty.
"""

import csv
import functools
import os
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image

from kprpe_jax.data.synthetic.faces import RenderedFaces, render, sample_shots
from kprpe_jax.data.synthetic.nuisance import Severity, Shot

ENROLLED, QUESTIONS, TRUTH = "people", "questions", "truth.csv"
HEADER = ("photo", "person", "left", "top", "right", "bottom")
_LEFT_OUT = ("mask", "sunglasses", "crop", "resolution")
# What the people of a group photo share: the background, the light and the camera.
_SHARED = (
    *("background_light", "background_hue", "light_x", "light_y", "contrast", "gain"),
    *("warmth", "noise", "blur"),
)
_SCALE = 0.62  # of a face over one that fills its aligned image
_WIDTH = 0.62  # of a person in a row, over the side of a portrait
_CHUNK = 4  # portraits rendered at once; one program, whatever is asked for


class PersonPhoto(NamedTuple):
    """A portrait.

    Attributes:
      image: uint8 [S, S, 3], RGB.
      box: float32 [4], (left, top, right, bottom) of all landmarks, in pixels.
    """

    image: np.ndarray
    box: np.ndarray


def write_photos(
    output: str | os.PathLike,
    *,
    num_identities: int = 12,
    num_test_identities: int = 3,
    images_per_identity: int = 3,
    faces_per_photo: int = 3,
    seed: int = 0,
    difficulty: float = 0.5,
    size: int = 224,
) -> tuple[int, int]:
    """Write photos of synthetic people into a new folder.

    It holds `people/person_00/0.jpg` ..., portraits; `questions/0.jpg` ..., group
    photos in which everybody appears once, in other images than the portraits; and
    `truth.csv`: who is where in these, with a box in pixels, without a name where there
    are no portraits of the person. It appears whole or not at all.

    Args:
      output: the folder.
      num_identities: people with portraits.
      num_test_identities: others, who are only in the group photos.
      images_per_identity: portraits of each.
      faces_per_photo: people of a group photo; the last may have fewer.
      seed: of all people and images.
      difficulty: severity of pose, expression, light, blur and noise: 0 = none.
      size: side of a portrait and height of a group photo, pixels.
    Returns: how many portraits and group photos.
    Raises: ValueError: the folder exists; counts below 1, a negative difficulty, a size
      below 64.
    """
    counts = num_identities, images_per_identity, faces_per_photo
    if min(counts) < 1 or min(num_test_identities, difficulty) < 0 or size < 64:
        raise ValueError(
            "--num-identities, --images-per-identity and --faces-per-photo must be at "
            "least 1, --num-test-identities and --difficulty not negative, --size at "
            f"least 64; got {counts}, {num_test_identities}, {difficulty}, {size}."
        )
    output = pathlib.Path(output)
    if output.exists():
        raise ValueError(
            f"--output {output} must not exist yet; name another folder or remove it."
        )
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / QUESTIONS).mkdir(parents=True)
    options = dict(difficulty=difficulty, size=size)
    try:
        known = np.repeat(np.arange(num_identities), images_per_identity)
        numbers = np.tile(np.arange(images_per_identity), num_identities)
        portraits = render_portraits(seed, known, numbers, **options)
        for person, number, photo in zip(known, numbers, portraits, strict=True):
            path = partial / ENROLLED / person_name(person) / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            _save(path, photo.image)
        everybody = num_identities + num_test_identities
        order = np.random.default_rng(seed).permutation(everybody)
        groups = np.split(order, range(faces_per_photo, everybody, faces_per_photo))
        rows = []
        for number, group in enumerate(groups):
            image, boxes = render_group(seed, group, images_per_identity, **options)
            name = f"{number}.jpg"
            _save(partial / QUESTIONS / name, image)
            for person, box in zip(group, boxes, strict=True):
                title = person_name(person) if person < num_identities else ""
                rows.append((name, title, *np.round(box, 1)))
        with (partial / TRUTH).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([HEADER, *rows])
        partial.rename(output)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return len(known), len(groups)


def render_portraits(
    seed: int,
    people: np.ndarray,
    numbers: np.ndarray,
    *,
    difficulty: float = 0.5,
    size: int = 224,
    like: Shot | None = None,
) -> list[PersonPhoto]:
    """Render people one by one.

    Args:
      seed: of all people and images.
      people, numbers: int [N], who, and which image of them.
      difficulty, size: of `write_photos`.
      like: nuisances [1] whose light, background and camera all get; None = each has
        its own.
    """
    portraits = []
    for start in range(0, len(people), _CHUNK):
        ids, index = (
            np.resize(x[start : start + _CHUNK], _CHUNK).astype(np.int32)
            for x in (people, numbers)
        )
        shot = _shots(seed, ids, index, difficulty)
        if like is not None:
            own = {name: np.resize(getattr(like, name), _CHUNK) for name in _SHARED}
            shot = shot._replace(**own)
        faces = jax.device_get(_renderer(size)(np.uint32(seed), ids, shot))
        points = faces.landmarks * size
        boxes = np.concatenate([points.min(1), points.max(1)], -1)
        portraits += map(PersonPhoto, faces.images, boxes)
    return portraits[: len(people)]


def render_group(
    seed: int,
    people: Sequence[int],
    number: int,
    *,
    difficulty: float = 0.5,
    size: int = 224,
) -> tuple[np.ndarray, np.ndarray]:
    """Render people side by side in one photo.

    Args:
      seed: of all people and images.
      people: F numbers, from left to right.
      number: which image of each.
      difficulty, size: of `write_photos`.
    Returns: uint8 [size, W, 3], RGB; boxes float32 [F, 4] as those of `PersonPhoto`.
    """
    ids = np.asarray(people, np.int32)
    numbers = np.full_like(ids, number)
    shared = _shots(seed, ids[:1], numbers[:1], difficulty)
    options = dict(difficulty=difficulty, size=size, like=shared)
    portraits = render_portraits(seed, ids, numbers, **options)
    margin = round((1 - _WIDTH) / 2 * size)
    width = size - 2 * margin
    parts, boxes = [], []
    for place, portrait in enumerate(portraits):
        # The first and the last keep their outer margin.
        left = 0 if place == 0 else margin
        right = size if place == len(portraits) - 1 else size - margin
        parts.append(portrait.image[:, left:right])
        boxes.append(portrait.box + np.array([place * width, 0] * 2, np.float32))
    return np.concatenate(parts, 1), np.stack(boxes)


def person_name(number: int) -> str:
    """The name of a person, "person_07"."""
    return f"person_{number:02d}"


def _shots(
    seed: int, people: np.ndarray, numbers: np.ndarray, difficulty: float
) -> Shot:
    """Nuisances [N] of portraits, host arrays."""
    levels = dict.fromkeys(Severity._fields, np.float32(difficulty))
    severity = Severity(**levels | dict.fromkeys(_LEFT_OUT, np.float32(0)))
    shot = jax.device_get(
        _sampler()(np.uint32(seed), people, numbers, severity=severity)
    )
    level = np.zeros_like(shot.scale)  # a sloped background would show the seams
    return shot._replace(scale=_SCALE * shot.scale, background_slope=level)


@functools.cache
def _sampler():
    return jax.jit(functools.partial(sample_shots, layout="aligned"))


@functools.cache
def _renderer(size: int) -> Callable[..., RenderedFaces]:
    return jax.jit(functools.partial(render, size=size))


def _save(path: pathlib.Path, image: np.ndarray) -> None:
    Image.fromarray(image).save(path, quality=95, subsampling=0)
