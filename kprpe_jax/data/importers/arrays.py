"""Images and labels as arrays in one .npz archive, such as small sets come in."""

import io
import os
from collections.abc import Iterator

import numpy as np
from PIL import Image

from kprpe_jax.core.npz import NpzReader
from kprpe_jax.data.importers.record import Record, RecordSource, file_state


def open_arrays(
    path: str | os.PathLike, *, image_array: str = "images", label_array: str = "labels"
) -> RecordSource:
    """Open an archive of arrays; they are stored without loss, as PNG.

    Args:
      path: the .npz; both arrays are read into memory.
      image_array: name of uint8 [N, H, W] or [N, H, W, 3].
      label_array: name of the identities, whole numbers >= 0 [N].
    Returns: a source with keys "0000000", ...
    Raises: ValueError: not such an archive, or arrays of another form.
    """
    path = os.fspath(path)
    try:
        archive = NpzReader(path)
        pixels, people = archive.read(image_array), archive.read(label_array)
    except (KeyError, ValueError) as e:
        raise ValueError(
            f"{path} must be an .npz with the arrays {image_array!r} and "
            f"{label_array!r}; got {str(e.args[0]).splitlines()[0]}; name others with "
            "--image-array and --label-array"
        ) from e
    gray = pixels.ndim == 3
    if pixels.dtype != np.uint8 or not (gray or pixels.shape[3:] == (3,)):
        raise ValueError(
            f"{image_array!r} in {path} must be uint8 [N, H, W] or "
            f"[N, H, W, 3]; got {pixels.dtype} {list(pixels.shape)}; convert it"
        )
    whole = people.dtype.kind in "iu" and people.shape == pixels.shape[:1]
    if not whole or (people < 0).any():
        raise ValueError(
            f"{label_array!r} in {path} must be whole numbers >= 0 "
            f"[{len(pixels)}]; got {people.dtype} {list(people.shape)}; name another "
            "with --label-array"
        )

    def read(start: int) -> Iterator[Record]:
        for row in range(start, len(pixels)):
            png = io.BytesIO()
            Image.fromarray(pixels[row]).save(png, "PNG")
            yield Record(f"{row:07d}", png.getvalue(), int(people[row]))

    state = f"{image_array} {label_array} {file_state(path)}"
    return RecordSource(read, state=state, count=len(pixels))
