"""Enroll features that `embed` or `fuse` wrote, without their photos."""

import hashlib
import os
import pathlib
from collections.abc import Iterator

from kprpe_jax.core.features import Features, take
from kprpe_jax.data.feature_file import FeatureFile, read_feature_file
from kprpe_jax.data.importers.record import RejectedRecord
from kprpe_jax.gallery.enroll import NAME_IN_USE, EnrollResult, check_skip
from kprpe_jax.gallery.gallery import Gallery
from kprpe_jax.gallery.header import GalleryEntry, NetworkSource


def enroll_features(
    gallery: Gallery, path: str | os.PathLike, *, on_error: str = "fail"
) -> EnrollResult:
    """Add the rows of feature files to a gallery, all or none of a file.

    Args:
      gallery: open, of the recognizer that made the features.
      path: a file that `embed` or `fuse` wrote, or a folder of such files.
      on_error: at a row without a person or with the name of another photo: `fail`, or
        `skip` it.
    Returns: photos and fused people that were added, that were there, and that were
      left out.
    Raises: ValueError: no such file; features of another recognizer, contract or
      fusion; a gallery that keeps patches and features without; a bad row with `fail`.
    """
    known, added, left_out = 0, 0, []
    one_each = gallery.header.fusion is not None
    for file, digest in _read_files(pathlib.Path(path)):
        _check_recognizer(gallery, file, path)
        gallery.check_fusion(_fusion(file, path))
        if gallery.header.patches == "none":
            kept = Features(file.features.embeddings)
        elif file.features.patches is None or file.features.keypoints is None:
            raise ValueError(
                f"enroll: the features of {path} have no patches and {gallery.path} "
                "keeps them; enroll into a gallery of --patches none."
            )
        else:
            kept = file.features._replace(style=None)
        entries = []
        for row, name in enumerate(file.names):
            person = str(file.persons[row])
            photo = str(name) if "/" in name else f"{person}/{name}"
            own = hashlib.sha256(f"{digest} {row}".encode()).hexdigest()
            why = () if person else ("unknown person", "it is of an unknown person")
            if gallery.photo_with(own) == photo:
                known += 1
                continue
            if gallery.has_photo(photo):
                why = NAME_IN_USE
            elif one_each and gallery.has_person(person):
                why = "name in use", f"{person} has an entry; remove it first"
            if not why:
                count = int(file.counts[row])
                entries.append(GalleryEntry(person, photo, own, take(kept, row), count))
                continue
            left_out.append(RejectedRecord(photo, *why))
            check_skip(left_out[-1], on_error)
        gallery.add(entries)
        added += len(entries)
    return EnrollResult(added, known, left_out)


def first_fusion(path: str | os.PathLike) -> NetworkSource | None:
    """What fused the first feature file of a path; None = nothing, a photo each.

    Raises: ValueError: no such file; one of an older version.
    """
    content, _ = next(_read_files(pathlib.Path(path)))
    return _fusion(content, path)


def _fusion(file: FeatureFile, path: str | os.PathLike) -> NetworkSource | None:
    """What fused a feature file."""
    record = file.about.get("fusion")
    if isinstance(record, str):
        raise ValueError(
            f"--features {path}: were fused by an older kprpe-jax, which did not name "
            "the fusion; fuse them again."
        )
    return None if record is None else NetworkSource(**record)


def _read_files(path: pathlib.Path) -> Iterator[tuple[FeatureFile, str]]:
    """The feature files of a path, each with the digest of its bytes."""
    files = [path]
    if path.is_dir():
        found = sorted(path.glob("*.npz"))
        files = [file for file in found if not file.name.endswith(".state.npz")]
    if not files:
        raise ValueError(
            f"--features {path}: must hold .npz files of `fuse`; got none."
        )
    for file in files:
        content = read_feature_file(file)
        yield content, hashlib.sha256(file.read_bytes()).hexdigest()


def _check_recognizer(
    gallery: Gallery, file: FeatureFile, path: str | os.PathLike
) -> None:
    header = gallery.header
    own = header.recognizer
    wanted = header.input_spec.describe(), own.fingerprint
    if (file.about.get("input_spec"), file.about.get("fingerprint")) != wanted:
        raise ValueError(
            f"enroll: the features of {path} are of {file.about.get('recognizer')} "
            f"({str(file.about.get('fingerprint'))[:12]}, "
            f"{file.about.get('input_spec')}), {gallery.path} is of {own.name} "
            f"({own.fingerprint[:12]}, {header.input_spec.describe()}): they cannot "
            "be compared; make the features with the gallery's recognizer."
        )
