"""Official affNIST files (.mat), for users who have them.

The layout is taken from its public description, not from an official file; the
reader checks everything that it relies on.
"""

import os

import numpy as np
import scipy  # loads its part io when that is asked for

from kprpe_jax.data.keypoints import box_keypoints
from kprpe_jax.data.rows import Rows

_SIZE = 40  # pixels


def read_affnist(path: str | os.PathLike) -> Rows:
    """Read one affNIST .mat file.

    The file holds a struct `affNISTdata` with `image` uint8 [1600, N], each
    column a 40 x 40 image stored column by column (as Matlab does), and
    `label_int` [1, N].

    Args:
      path: a .mat file of Matlab 5 to 7.2.
    Returns: rows as of any digits data set: image uint8 [40, 40, 1], 0..255; label
      int32; id int32; keypoints float32 [5, 2], corners and center of the upright box
      around the ink, for the files do not tell how each digit was turned.
    Raises: ValueError: no such file, not a .mat file, another structure.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise ValueError(f"{path} is not a file; give the path of an affNIST .mat file")
    try:
        content = scipy.io.loadmat(path, squeeze_me=False)
    except Exception as e:  # damaged files raise whatever the parser stumbled over
        raise ValueError(
            f"{path} is not a readable .mat file of Matlab 5 to 7.2 "
            f"({e}); fetch it again"
        ) from e
    image = _field(path, content, "image")
    label = _field(path, content, "label_int")
    if image.ndim != 2 or image.shape[0] != _SIZE**2 or image.dtype != np.uint8:
        raise ValueError(
            f"affNISTdata.image in {path} must be uint8 [1600, N]; got "
            f"{image.dtype} {list(image.shape)}; use a file of 40 x 40 digits"
        )
    labels = label.reshape(-1)
    if labels.size != image.shape[1]:
        raise ValueError(
            f"affNISTdata.label_int in {path} must have one label for "
            f"each of the {image.shape[1]} images; got {labels.size}; fetch the file "
            "again"
        )
    if labels.size and not ((labels >= 0) & (labels <= 9)).all():
        raise ValueError(
            f"affNISTdata.label_int in {path} must be 0..9; got "
            f"{labels.min()}..{labels.max()}; fetch the file again"
        )
    # Column-major pixels: the first axis of a column's reshape is x.
    images = image.T.reshape(-1, _SIZE, _SIZE).transpose(0, 2, 1)[..., None]
    images = np.ascontiguousarray(images)
    return Rows(
        {
            "image": images,
            "label": labels.astype(np.int32),
            "keypoints": box_keypoints(images),
            "id": np.arange(len(images), dtype=np.int32),
        }
    )


def _field(path: str, content: dict, name: str) -> np.ndarray:
    """Return one field of the 1 x 1 struct `affNISTdata`."""
    struct = content.get("affNISTdata")
    fields = struct.dtype.names if isinstance(struct, np.ndarray) else None
    if not fields or name not in fields or struct.size != 1:
        found = (
            f"fields {sorted(fields)}"
            if fields
            else f"variables {sorted(k for k in content if not k.startswith('__'))}"
        )
        raise ValueError(
            f"{path} must hold a struct affNISTdata with the field "
            f"{name}; got {found}; use an official affNIST file"
        )
    return np.asarray(struct.reshape(-1)[0][name])
