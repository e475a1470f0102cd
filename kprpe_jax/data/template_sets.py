"""Data sets of templates, searched or compared: IJB-B, IJB-C, IJB-S, TinyFace.

Images that no list names are left out before anything is embedded. A template without
images is an error: it would leave the denominator, and images that cannot be read are
the hard ones.
"""

import os
from typing import NamedTuple

import numpy as np

from kprpe_jax.data.faces import FaceRows, check_keypoints
from kprpe_jax.data.importers.ijb import DETECTION_SCORE
from kprpe_jax.data.rows import read_fields
from kprpe_jax.data.store import only_split, open_split, read_tables


class Lists(NamedTuple):
    """Pairs and 1:N lists of templates, by their ids.

    Attributes:
      first, second: int64 [P]; P may be 0.
      same: bool [P].
      galleries, probes: name -> (templates int64 [M], subjects int64 [M]).
    """

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray
    galleries: dict[str, tuple[np.ndarray, np.ndarray]]
    probes: dict[str, tuple[np.ndarray, np.ndarray]]


class TemplateSet(NamedTuple):
    """Images with their templates and identities.

    Attributes:
      faces: N images, decoded as they are read.
      template: int64 [N], template of each image; its person where the import has no
        templates, such as a folder of stills.
      media: int64 [N], video or photo that the image is of; each image its own where
        the import does not say.
      identity: str [N], "" = unknown.
      part: str [N], of TinyFace: probe, match or distractor; "" elsewhere.
      detection_score: float32 [N] in [0, 1], the detector's; 1 where the import keeps
        none.
      lists: of IJB-B and IJB-C; empty elsewhere.
    """

    faces: FaceRows
    template: np.ndarray
    media: np.ndarray
    identity: np.ndarray
    part: np.ndarray
    detection_score: np.ndarray
    lists: Lists


def open_template_set(
    data_dir: str | os.PathLike,
    name: str,
    *,
    image_size: tuple[int, int],
    align: bool = False,
    needs_keypoints: bool = False,
) -> TemplateSet:
    """Open an import as templates.

    Args:
      data_dir, name: of the data set, which has one split.
      image_size: (height, width) of the images.
      align: bring photos of any size to the template by their keypoints; else every
        image must have `image_size`.
      needs_keypoints: of `FaceRows`.
    Raises: ValueError: no such data set; its lists, or the CSV of videos, name
      templates without images; an image without identity where there are no lists; a
      probe of TinyFace that was not imported, or none of whose matches was; images
      without keypoints where they are needed.
    """
    tables = read_tables(data_dir, name)
    source = open_split(data_dir, name, only_split(data_dir, name))
    known = ("template", "media", "part", DETECTION_SCORE)
    names = [f for f in known if f in source[0]]
    fields = read_fields(source, [*names, "identity", "label", "has_keypoints"])
    identity, part = (
        np.array([_text(v) for v in fields.get(f, [])] or [""] * len(source))
        for f in ("identity", "part")
    )
    rows = media = np.arange(len(source))
    if "media" in fields:
        media = np.unique([_text(v) for v in fields["media"]], return_inverse=True)[1]
    template = np.array(fields.get("template", fields["label"]), np.int64)
    scores = np.array(fields.get(DETECTION_SCORE, np.ones(len(source))), np.float32)
    lists = read_lists(tables)
    if "template" in fields and tables:
        videos = tables.get("video_template", np.zeros(0, np.int64))
        rows = _named_rows(name, template, lists, videos)
    elif (unnamed := (identity == "") & (part != "distractor")).any():
        raise ValueError(
            f"every image of {name} must be of somebody; got "
            f"{unnamed.sum()} without identity, the first is row {unnamed.argmax()}; "
            "import it with its lists"
        )
    _check_probes(name, template, part, tables)
    if align or needs_keypoints:
        check_keypoints(name, fields["has_keypoints"][rows])
    return TemplateSet(
        FaceRows(
            source,
            image_size=image_size,
            rows=rows,
            needs_keypoints=needs_keypoints,
            share=1.0 if align else None,
        ),
        template[rows],
        media[rows],
        identity[rows],
        part[rows],
        scores[rows],
        lists,
    )


def read_lists(tables: dict[str, np.ndarray]) -> Lists:
    """Sort the tables of `data.importers.ijb` into pairs, galleries and probes."""
    none = np.zeros(0, np.int64)

    def kind(prefix: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        suffix = "_template"
        names = [n for n in tables if n.startswith(prefix) and n.endswith(suffix)]
        found = {n.removeprefix(prefix).removesuffix(suffix): n for n in sorted(names)}
        return {
            short: (tables[n], tables[n.removesuffix(suffix) + "_subject"])
            for short, n in found.items()
        }

    return Lists(
        first=tables.get("pair_template1", none),
        second=tables.get("pair_template2", none),
        same=tables.get("pair_same", none.astype(bool)),
        galleries=kind("gallery_"),
        probes=kind("probe_"),
    )


def _named_rows(
    name: str, template: np.ndarray, lists: Lists, videos: np.ndarray
) -> np.ndarray:
    """Rows of the templates that a list names; every one must have a row."""
    searched = [ids for ids, _ in (*lists.galleries.values(), *lists.probes.values())]
    wanted = np.unique(np.concatenate([lists.first, lists.second, *searched, videos]))
    missing = wanted[~np.isin(wanted, template)]
    if missing.size:
        raise ValueError(
            f"every template that the lists of {name} name must "
            f"have an image; got {missing.size} of {len(wanted)} without one, such as "
            f"{missing[:5].tolist()}; import their images (import_report.json says "
            "which were left out)"
        )
    return np.flatnonzero(np.isin(template, wanted))


def _check_probes(
    name: str, template: np.ndarray, part: np.ndarray, tables: dict[str, np.ndarray]
) -> None:
    """Check that every probe of TinyFace is there and has a match."""
    probes = template[part == "probe"]
    lost = int(tables.get("num_probes", len(probes))) - len(probes)
    alone = int((~np.isin(probes, template[part == "match"])).sum())
    if lost or alone:
        raise ValueError(
            f"every probe of {name} must have its image, and one of "
            f"its person in Gallery_Match; got {lost} of {lost + len(probes)} without "
            f"their image and {alone} without a match; import these images "
            "(import_report.json says which were left out)"
        )


def _text(value: bytes | np.integer) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
