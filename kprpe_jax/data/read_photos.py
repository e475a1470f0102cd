"""Photos of a folder, or the frames of a video, one after the other."""

import os
import pathlib
from collections.abc import Iterator

import numpy as np

from kprpe_jax.data.importers.decode import decode_rgb

PHOTOS = (".jpg", ".jpeg", ".pgm", ".png")
VIDEOS = (".avi", ".mkv", ".mov", ".mp4", ".webm")


def read_photos(source: pathlib.Path) -> Iterator[tuple[str, np.ndarray | str]]:
    """Read a folder, with the folders in it, or a video.

    Args:
      source: folder of JPEG, PGM and PNG files and videos, or one video.
    Returns: names relative to the folder, and the photos or why they cannot be read;
      hidden files and those of other kinds are passed over.
    Raises: ValueError: no such folder or video; a video without OpenCV.
    """
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            name = path.relative_to(source)
            if any(part.startswith(".") for part in name.parts) or not path.is_file():
                continue
            if path.suffix.lower() in PHOTOS:
                try:
                    yield name.as_posix(), decode_rgb(path.read_bytes())
                except (ValueError, OSError) as error:
                    yield name.as_posix(), str(error)
            elif path.suffix.lower() in VIDEOS:
                yield from _read_video(path, name.as_posix())
    elif source.is_file() and source.suffix.lower() in VIDEOS:
        yield from _read_video(source, source.name)
    else:
        raise ValueError(
            f"read_photos: the source must be a folder or a video with one of the "
            f"endings {', '.join(VIDEOS)}; got {source}; check its name"
        )


def _read_video(
    path: pathlib.Path, name: str
) -> Iterator[tuple[str, np.ndarray | str]]:
    try:
        import cv2
    except ImportError as error:
        raise ValueError(
            f"read_photos: videos need OpenCV, which is not installed, for {path}; "
            "pip install '.[video]'"
        ) from error
    video = cv2.VideoCapture(os.fspath(path))
    number = 0
    while True:
        ok, frame = video.read()
        if not ok:
            break
        yield f"{name}/{number:06d}", np.ascontiguousarray(frame[..., ::-1])
        number += 1
    video.release()
    if not number:
        yield name, "no frame can be decoded"
