"""Photos of a file, a folder with its folders, or the frames of a video."""

import collections
import os
import pathlib
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from kprpe_jax.data.importers.decode import decode_rgb

PHOTOS = (".jpg", ".jpeg", ".pgm", ".png", ".ppm")
# Photos to everybody else: they are read too, and the decoder says that it cannot.
_UNREADABLE = (".bmp", ".gif", ".heic", ".heif", ".jp2", ".tif", ".tiff", ".webp")
_Key = TypeVar("_Key")
_THREADS = min(os.cpu_count() or 1, 8)
_AHEAD = 16  # photos that are decoded before they are asked for
VIDEOS = (".avi", ".mkv", ".mov", ".mp4", ".webm")


def find_photos(path: str | os.PathLike) -> list[pathlib.Path]:
    """Find the photos and videos of a folder and its folders, or take one file.

    Args:
      path: a photo, a video or a folder. In a folder hidden files and files of other
        kinds are passed over; links are followed.
    Returns: files, in the order of their names.
    Raises: ValueError: no such file or folder, or no photo in it.
    """
    path = pathlib.Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(
            f"{path} must be a photo, a video or a folder of them; got neither; check "
            "the path."
        )
    found = [file for file in _files(path, ()) if _kind(file)]
    if not found:
        kinds = ", ".join(PHOTOS + VIDEOS)
        raise ValueError(f"{path} must hold photos or videos ({kinds}); got none.")
    return found


def read_photos(path: str | os.PathLike) -> Iterator[tuple[str, np.ndarray | str]]:
    """Read photos and frames of videos, one after the other.

    Args:
      path: as `find_photos` takes it.
    Returns: pairs of a name and the photo, uint8 [H, W, 3], or the reason why it cannot
      be read. A name is relative to the folder, such as "anna/1.jpg"; that of a frame
      is "anna/clip.mp4/000017"; that of a single file is its own.
    Raises: ValueError: as `find_photos`; a video without OpenCV.
    """
    path = pathlib.Path(path)
    files = (
        (file.name if file == path else file.relative_to(path).as_posix(), file)
        for file in find_photos(path)
    )
    for name, images in read_files(files):
        for suffix, image in images:
            yield f"{name}{suffix}", image


def read_files(
    files: Iterable[tuple[_Key, pathlib.Path]],
) -> Iterator[tuple[_Key, Iterable[tuple[str, np.ndarray | str]]]]:
    """Read photos and videos; the next photos are decoded in threads.

    Args:
      files: a key, such as a name, and a path; asked for by the caller's thread, a few
        ahead. Where that fails, the files before are given first.
    Returns: the key, and the images of the file, to be read before the next: a photo
      has one, named "", or the reason why it cannot be read; frames are named "/000017"
      and so on.
    Raises: ValueError: a video without OpenCV.
    """
    waiting: collections.deque = collections.deque()
    files, failure, ahead = iter(files), None, _AHEAD
    with ThreadPoolExecutor(_THREADS) as pool:
        while ahead:
            try:
                key, path = next(files)
                is_video = _kind(path) == "video"
                photo = None if is_video else pool.submit(_read_photo, path)
                waiting.append((key, path, photo))
            except StopIteration:
                ahead = 0
            except BaseException as error:  # also Ctrl-C
                failure, ahead = error, 0
            while len(waiting) > ahead:
                yield _images(*waiting.popleft())
    if failure is not None:
        raise failure


def count_photos(path: str | os.PathLike) -> int | None:
    """How many photos `read_photos` gives; None where a video is among them.

    Raises: ValueError: as `find_photos`.
    """
    files = find_photos(path)
    return None if any(_kind(file) == "video" for file in files) else len(files)


def visible_names(folder: str | os.PathLike) -> list[str]:
    """Names in a folder, sorted, without hidden ones."""
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def _files(folder: pathlib.Path, above: tuple[str, ...]) -> Iterator[pathlib.Path]:
    """All visible files; a link to a folder `above` is not followed."""
    real = os.path.realpath(folder)
    if real in above:
        return
    for name in visible_names(folder):
        path = folder / name
        if path.is_dir():
            yield from _files(path, (*above, real))
        else:
            yield path


def _kind(path: pathlib.Path) -> str:
    """A file is a "photo", a "video" or something else, ""."""
    ending = path.suffix.lower()
    if ending in VIDEOS:
        return "video"
    return "photo" if ending in PHOTOS + _UNREADABLE else ""


def _images(
    key: _Key, path: pathlib.Path, photo: Future | None
) -> tuple[_Key, Iterable[tuple[str, np.ndarray | str]]]:
    if photo is None:
        return key, _read_video(path)
    return key, [("", photo.result())]


def _read_photo(path: pathlib.Path) -> np.ndarray | str:
    try:
        return decode_rgb(path.read_bytes())
    except (ValueError, OSError) as error:
        return str(error)


def _read_video(path: pathlib.Path) -> Iterator[tuple[str, np.ndarray | str]]:
    try:
        import cv2
    except ImportError as error:
        raise ValueError(
            f"{path}: videos need OpenCV, which is not installed; "
            "pip install opencv-python-headless."
        ) from error
    video = cv2.VideoCapture(os.fspath(path))
    number = 0
    while True:
        ok, frame = video.read()
        if not ok:
            break
        yield f"/{number:06d}", np.ascontiguousarray(frame[..., ::-1])
        number += 1
    video.release()
    if not number:
        yield "", "no frame can be decoded"
