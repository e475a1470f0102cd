"""Photos of a file, a folder with its folders, or the frames of a video."""

import collections
import os
import pathlib
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np

from kprpe_jax.data.importers.decode import decode_rgb
from kprpe_jax.data.importers.record import RejectedRecord

PHOTOS = (
    *(".jpg", ".jpeg", ".png", ".pgm", ".ppm", ".bmp", ".gif", ".tif", ".tiff"),
    *(".webp", ".avif", ".jp2", ".heic", ".heif"),
)
# First bytes of photos, for files whose names end otherwise. Pixmaps begin with P1..P7.
_FIRST_BYTES = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\0", b"MM\0*"),
    *(b"P5\n", b"P6\n", b"P5 ", b"P6 ", b"\0\0\0\x0cjP  "),
)
_BRANDS = (b"heic", b"heix", b"hevc", b"mif1", b"avif")  # behind "ftyp"
_Key = TypeVar("_Key")
_THREADS = min(os.cpu_count() or 1, 8)
_AHEAD = 16  # photos that are decoded before they are asked for
# Of a photo's file: what 2**27 pixels have unpacked, and some more.
_MOST_BYTES = 1 << 29
_MOST_FAILED = 10_000  # frames in a row, of a file that promises far too many
VIDEOS = (".avi", ".mkv", ".mov", ".mp4", ".webm")
EMPTY_FOLDER = ("empty folder", "it holds no photo")  # kind and reason


class FoundPhotos(NamedTuple):
    """The files of a path, found by one walk.

    Attributes:
      path: what was named.
      files: photos and videos, in the order of their names.
      others: what else is visible: files that are neither, pipes, folders that cannot
        be read, links to a folder above.
      empty: folders right below the path without a photo and a video.
    """

    path: pathlib.Path
    files: list[pathlib.Path]
    others: list[RejectedRecord]
    empty: list[str]

    def name(self, file: pathlib.Path) -> str:
        """Name of a file below the folder that was named, or its own."""
        if file == self.path:
            return file.name
        return file.relative_to(self.path).as_posix()

    def passed_over(self) -> list[RejectedRecord]:
        """All that is no photo: `others`, and the empty folders."""
        empty = [RejectedRecord(name, *EMPTY_FOLDER) for name in self.empty]
        return [*self.others, *empty]

    @property
    def count(self) -> int | None:
        """How many photos `read_photos` gives; None where a video is among them."""
        return None if any(map(is_video, self.files)) else len(self.files)


PhotoPath = str | os.PathLike | FoundPhotos


def find_photos(path: PhotoPath, *, may_be_none: bool = False) -> FoundPhotos:
    """Find the photos and videos of a folder and its folders, or take one file.

    Args:
      path: a photo, a video or a folder. In a folder hidden files are passed over;
        links are followed. What was found before is given back.
      may_be_none: a folder may hold no photo.
    Raises: ValueError: no such file or folder, or no photo in it.
    """
    if isinstance(path, FoundPhotos):
        return path
    path = pathlib.Path(path)
    if path.is_file():
        return FoundPhotos(path, [path], [], [])
    if not path.is_dir():
        raise ValueError(
            f"{path} must be a photo, a video or a folder of them; got neither; check "
            "the path."
        )
    found = FoundPhotos(path, [], [], [])
    for name in _names(path, found):
        files, others = len(found.files), len(found.others)
        _walk(path / name, (os.path.realpath(path),), found)
        told = {row.key for row in found.others[others:]}
        if len(found.files) == files and (path / name).is_dir() and name not in told:
            found.empty.append(name)
    if not (found.files or may_be_none):
        kinds = ", ".join(PHOTOS + VIDEOS)
        raise ValueError(f"{path} must hold photos or videos ({kinds}); got none.")
    return found


def read_photos(path: PhotoPath) -> Iterator[tuple[str, np.ndarray | str]]:
    """Read photos and frames of videos, one after the other.

    Args:
      path: as `find_photos` takes it.
    Returns: pairs of a name and the photo, uint8 [H, W, 3], or the reason why it cannot
      be read. A name is relative to the folder, such as "anna/1.jpg"; that of a frame
      is "anna/clip.mp4/000017"; that of a single file is its own.
    Raises: ValueError: as `find_photos`; a video without OpenCV.
    """
    found = find_photos(path)
    files = ((found.name(file), file) for file in found.files)
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
      and so on, also those that cannot be decoded. Where a file ends before the number
      of frames that it promises, its first missing frame says so.
    Raises: ValueError: a video without OpenCV.
    """
    waiting: collections.deque = collections.deque()
    files, failure, ahead = iter(files), None, _AHEAD
    with ThreadPoolExecutor(_THREADS) as pool:
        while ahead:
            try:
                key, path = next(files)
                photo = None if is_video(path) else pool.submit(_read_photo, path)
                waiting.append((key, path, photo))
            except StopIteration:
                ahead = 0
            except BaseException as error:  # also Ctrl-C
                failure, ahead = error, 0
            while len(waiting) > ahead:
                yield _images(*waiting.popleft())
    if failure is not None:
        raise failure


def is_video(path: pathlib.Path) -> bool:
    """Whether a file is read as a video, by its ending."""
    return path.suffix.lower() in VIDEOS


def too_large(path: pathlib.Path) -> bool:
    """Whether a photo's file has more bytes than are read; raises OSError."""
    return path.stat().st_size > _MOST_BYTES and not is_video(path)


def visible_names(folder: str | os.PathLike) -> list[str]:
    """Names in a folder, sorted, without hidden ones."""
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def _walk(path: pathlib.Path, above: tuple[str, ...], found: FoundPhotos) -> None:
    """Sort a file, or all visible files of a folder; `above` are the real folders."""
    if not path.is_dir():
        if path.exists() and not path.is_file():
            _pass_over(found, path, "it is a pipe, a socket or a device")
        elif is_video(path) or _is_photo(path):
            found.files.append(path)
        else:
            _pass_over(found, path, "by name and content no photo and no video")
        return
    real = os.path.realpath(path)
    if real in above:
        _pass_over(found, path, "it is a link to a folder above")
        return
    for name in _names(path, found):
        _walk(path / name, (*above, real), found)


def _names(folder: pathlib.Path, found: FoundPhotos) -> list[str]:
    """Visible names of a folder; one that cannot be read is noted."""
    try:
        return visible_names(folder)
    except OSError as error:
        _pass_over(found, folder, f"the folder cannot be read ({error.strerror})")
        return []


def _pass_over(found: FoundPhotos, path: pathlib.Path, reason: str) -> None:
    found.others.append(RejectedRecord(found.name(path), "no photo", reason))


def _is_photo(path: pathlib.Path) -> bool:
    """Whether a file is a photo, by its ending or content."""
    return path.suffix.lower() in PHOTOS or _begins_as_photo(path)


def _begins_as_photo(path: pathlib.Path) -> bool:
    try:
        with path.open("rb") as file:
            first = file.read(12)
    except OSError:
        return False
    riff = first[:4] == b"RIFF" and first[8:] == b"WEBP"
    bitmap = first[:2] == b"BM" and first[6:10] == bytes(4)
    iso = first[4:8] == b"ftyp" and first[8:] in _BRANDS
    return riff or bitmap or iso or first.startswith(_FIRST_BYTES)


def _images(
    key: _Key, path: pathlib.Path, photo: Future | None
) -> tuple[_Key, Iterable[tuple[str, np.ndarray | str]]]:
    if photo is None:
        return key, _read_video(path)
    return key, [("", photo.result())]


def _read_photo(path: pathlib.Path) -> np.ndarray | str:
    try:
        if too_large(path):
            return f"it has more than {_MOST_BYTES} bytes"
        return decode_rgb(path.read_bytes())
    except ValueError as error:
        return str(error)
    except OSError as error:
        return f"it cannot be read ({error.strerror})"


def _read_video(path: pathlib.Path) -> Iterator[tuple[str, np.ndarray | str]]:
    try:
        import cv2
    except ImportError as error:
        raise ValueError(
            f"{path}: videos need OpenCV, which is not installed; "
            "pip install opencv-python-headless."
        ) from error
    video = cv2.VideoCapture(os.fspath(path))
    promised = max(int(video.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
    number, failed = 0, 0  # frames asked for; how many of the last ones failed
    while failed <= _MOST_FAILED:
        ok, frame = video.read()
        if ok:
            for lost in range(number - failed, number):
                yield f"/{lost:06d}", "the frame cannot be decoded"
            yield f"/{number:06d}", np.ascontiguousarray(frame[..., ::-1])
            failed = 0
        elif number >= promised:  # a failed read is the end only where one is due
            break
        else:
            failed += 1
        number += 1
    video.release()
    last = number - failed
    if not last:
        yield "", "no frame can be decoded"
    elif failed:
        yield (
            f"/{last:06d}",
            f"from here on no frame can be decoded: {last} of the {promised} that the "
            "file promises were read",
        )
