"""Features of photos, or of fused people, in one .npz file."""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kprpe_jax.core.features import Features
from kprpe_jax.core.npz import read_npz

KIND = "kprpe_jax features"


class FeatureFile(NamedTuple):
    """Features with the names of their photos and people.

    Attributes:
      features: of N photos or fused people, on the host.
      names: str [N], of the photos.
      persons: str [N]; "" = unknown.
      counts: int32 [N], images that were fused; 1 for a photo.
      about: recognizer, fingerprint and input_spec of the network; others may follow.
    """

    features: Features
    names: np.ndarray
    persons: np.ndarray
    counts: np.ndarray
    about: Mapping[str, Any]


def check_path(path: str | os.PathLike) -> pathlib.Path:
    """Raise ValueError unless a path ends with .npz."""
    path = pathlib.Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"--output {path}: must end with .npz.")
    return path


def write_feature_file(
    path: str | os.PathLike,
    features: Features,
    *,
    names: Sequence[str],
    persons: Sequence[str],
    counts: Sequence[int],
    about: Mapping[str, Any],
) -> None:
    """Write features to an .npz file, in one move; arguments as `FeatureFile`.

    Raises: ValueError: another ending.
    """
    path = check_path(path)
    arrays = {
        name: np.asarray(x) for name, x in features._asdict().items() if x is not None
    }
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as out:
        np.savez(
            out,
            **arrays,
            names=np.array(names, np.str_),
            persons=np.array(persons, np.str_),
            counts=np.array(counts, np.int32),
            about=json.dumps({"kind": KIND, **about}),
        )
    partial.replace(path)


def read_feature_file(path: str | os.PathLike) -> FeatureFile:
    """Read features; nothing in the file is executed.

    Raises: ValueError: no such file, or one of something else.
    """
    try:
        arrays = read_npz(path)
        about = json.loads(str(arrays["about"]))
        features = Features(*(arrays.get(name) for name in Features._fields))
        lengths = {len(arrays[n]) for n in ("embeddings", "names", "persons", "counts")}
        if about.pop("kind") != KIND or len(lengths) != 1:
            raise ValueError("it is of another kind")
    except (OSError, KeyError, ValueError, TypeError, EOFError) as error:
        raise ValueError(
            f"{path} must be features written by `kprpe-jax embed` or `fuse`; reading "
            f"it failed ({str(error).splitlines()[0][:160]})"
        ) from error
    return FeatureFile(
        features, arrays["names"], arrays["persons"], arrays["counts"], about
    )
