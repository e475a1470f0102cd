"""Gait sequences as folders: OpenGait's pickles of silhouettes, or images of frames.

    ROOT/PERSON/.../SEQUENCE/x.pkl        uint8 [T, H, W], as OpenGait writes them
    ROOT/PERSON/.../SEQUENCE/0001.png     one image per frame, in order of the names

Every folder with files is a sequence; its key is the path below ROOT, such as
"0001/nm-01/090", and the first part of it the person.
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from kprpe_jax.data.check import KEYPOINT_RANGE
from kprpe_jax.data.gait_rows import NUM_JOINTS, GaitSequence
from kprpe_jax.data.importers.decode import decode_rgb
from kprpe_jax.data.importers.gait_frames import fit_frames, has_person
from kprpe_jax.data.importers.gait_joints import Joints, Lookup
from kprpe_jax.data.importers.record import RejectedRecord, read_image
from kprpe_jax.data.importers.safe_pickle import PickledArray, read_pickle
from kprpe_jax.data.read_photos import visible_names

UNITS = ("pixel", "fraction")


class Settings(NamedTuple):
    """How sequences are read.

    Attributes:
      size: (H, W) of the data set.
      fit: of `fit_frames`.
      joints: of `open_joints`; None = all are missing.
      joint_units: of these: pixels of the frames as they lie there, or fractions.
    """

    size: tuple[int, int]
    fit: str = "height"
    joints: Lookup | None = None
    joint_units: str = "pixel"


def find_sequences(root: str | os.PathLike) -> dict[str, list[str]]:
    """Sequences by person, in order of names.

    Returns: person -> keys; none for a person whose folder holds no file.
    Raises: ValueError: no such folder, or no folder in it.
    """
    root = os.fspath(root)
    names = visible_names(root) if os.path.isdir(root) else []
    people = [name for name in names if os.path.isdir(os.path.join(root, name))]
    if not people:
        raise ValueError(
            f"import: {root} must hold a folder per person; got "
            + (f"{names[:3]} ..." if names else "nothing")
            + "; give the folder above the people"
        )
    return {
        person: [*_sequences(root, person, (os.path.realpath(root),))]
        for person in people
    }


def _sequences(root: str, key: str, above: tuple[str, ...]) -> Iterator[str]:
    """Keys of the folders with files; links are followed, but to a folder above."""
    folder = os.path.join(root, key)
    real = os.path.realpath(folder)
    if real in above:
        return
    names = visible_names(folder)
    inner = [name for name in names if os.path.isdir(os.path.join(folder, name))]
    if len(inner) < len(names) or ("/" in key and not inner):
        yield key
    for name in inner:
        yield from _sequences(root, f"{key}/{name}", (*above, real))


def read_sequence(
    root: str | os.PathLike, key: str, settings: Settings, *, is_probe: bool
) -> tuple[GaitSequence | None, list[RejectedRecord]]:
    """Read one sequence.

    Frames without a person are left out; joints that are unknown, do not fit or are
    further out than a frame are missing. Both are reported.

    Args:
      root: the folder of all people.
      key: from `find_sequences`.
      settings: see there.
      is_probe: of `GaitSequence`.
    Returns: the sequence, None where there is nothing to keep; what was bad.
    """
    try:
        frames = _read_frames(os.path.join(root, key))
    except ValueError as e:
        return None, [RejectedRecord(key, "broken sequence", str(e))]
    if not len(frames):
        return None, [RejectedRecord(key, "no frames", "its folder holds no frame")]
    bad = []
    joints = _read_joints(frames, key, settings, bad)
    seen = has_person(frames)
    if not seen.all():
        empty = np.flatnonzero(~seen)
        some = f"frames {empty[:5].tolist()}, {len(empty)} of {len(seen)}, show nobody"
        bad.append(
            RejectedRecord(key, "empty frames" if seen.any() else "no frames", some)
        )
        if not seen.any():
            return None, bad
    try:
        cut, points = fit_frames(
            frames[seen], joints.points[seen], size=settings.size, fit=settings.fit
        )
    except ValueError as e:
        return None, [*bad, RejectedRecord(key, "wrong size", str(e))]
    low, high = KEYPOINT_RANGE
    known = joints.known[seen]
    far = known & ~((points >= low) & (points <= high)).all(-1)
    if far.any():
        some = (
            f"{int(far.sum())} joints lie further out than one frame; are missing now"
        )
        bad.append(RejectedRecord(key, "far joints", some))
    person = key.split("/")[0]
    return GaitSequence(key, person, cut, points, known & ~far, is_probe), bad


def _read_frames(folder: str) -> np.ndarray:
    """uint8 [T, h, w], 0..255, of a pickle or of images."""
    names = visible_names(folder)
    pickles = [name for name in names if name.endswith(".pkl")]
    if pickles:
        named = [name for name in pickles if "sil" in name.lower()]
        if len(named or pickles) > 1:
            raise ValueError(f"one pickle must be the silhouettes'; got {pickles[:4]}")
        frames = _unpickle(os.path.join(folder, (named or pickles)[0]))
    else:
        frames = [_decode(os.path.join(folder, name)) for name in names]
    sizes = sorted({frame.shape for frame in frames})
    if len(sizes) > 1:
        raise ValueError(f"frames must have one size; got {sizes[:4]}")
    frames = np.stack(frames) if len(frames) else np.zeros((0, 1, 1), np.uint8)
    # Some write 1 for the person.
    return frames * np.uint8(255) if frames.max(initial=0) == 1 else frames


def _unpickle(path: str) -> list[np.ndarray]:
    value = read_pickle(
        path,
        caller="import",
        wanted="a pickle of silhouettes",
        dtypes=("uint8", "bool"),
    )
    if isinstance(value, PickledArray):
        array = value.to_numpy()
        if array.ndim == 3 and array.size:
            return list(array.astype(np.uint8))
        if array.size == 0:
            return []
        raise ValueError(f"silhouettes must be [T, H, W]; got {list(array.shape)}")
    plain = isinstance(value, list | tuple)
    arrays = value if plain else ()
    flat = [isinstance(a, PickledArray) and len(a.shape) == 2 for a in arrays]
    if not plain or not all(flat):
        raise ValueError(
            "silhouettes must be one array or a list of [H, W]; got "
            f"{type(value).__name__}"
        )
    return [array.to_numpy().astype(np.uint8) for array in arrays]


def _decode(path: str) -> np.ndarray:
    image = read_image(path, path)
    if isinstance(image, RejectedRecord):
        raise ValueError(image.reason)
    try:
        return decode_rgb(image).max(-1)
    except ValueError as e:
        raise ValueError(f"{os.path.basename(path)}: {e}") from e


def _read_joints(
    frames: np.ndarray, key: str, settings: Settings, bad: list[RejectedRecord]
) -> Joints:
    """Joints in pixels of the frames, none known where they do not fit."""
    length, height, width = frames.shape
    shape = (length, NUM_JOINTS)
    nothing = Joints(np.zeros((*shape, 2), np.float32), np.zeros(shape, bool))
    if settings.joints is None:
        return nothing
    try:
        joints = settings.joints(key)
    except ValueError as e:
        bad.append(RejectedRecord(key, "broken joints", str(e)))
        return nothing
    if joints is None or not joints.known.any():
        bad.append(RejectedRecord(key, "missing joints", "no joint of it is known"))
        return nothing
    if len(joints.points) != length:
        reason = f"joints of {len(joints.points)} frames for {length}"
        bad.append(RejectedRecord(key, "joints of other length", reason))
        return nothing
    if settings.joint_units == "fraction":
        pixels = joints.points * np.array([width, height], np.float32)
        return joints._replace(points=pixels)
    return joints
