"""Compute a backbone's features of faces once, clean and degraded, for set fusion.

    python -m kprpe_jax.data.precompute --source lfw --name lfw_features \\
        --data_dir data --backbone mobilefacenet --weights mobilefacenet.npz

What is degraded, and how, depends on the seed, the photo and the copy alone.
"""

import sys

import jax
import numpy as np
from absl import app, flags, logging

from kprpe_jax.core.compile_cache import use_compile_cache
from kprpe_jax.data.face_features import write_features
from kprpe_jax.data.faces import open_faces
from kprpe_jax.data.feature_rows import choose_photos, feature_rows
from kprpe_jax.weights.extractor import KINDS, open_extractor

_SOURCE = flags.DEFINE_string("source", None, "Data set of imported faces.")
_SPLIT = flags.DEFINE_string("split", "train", "Its split.")
_NAME = flags.DEFINE_string("name", None, "Data set to write.")
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder of all data sets.")
_BACKBONE = flags.DEFINE_enum("backbone", "mobilefacenet", KINDS, "Backbone.")
_WEIGHTS = flags.DEFINE_string("weights", None, "File of its weights.")
_TAPS = flags.DEFINE_list("taps", [], "Maps for the style; default of the backbone.")
_COPIES = flags.DEFINE_integer("copies", 4, "Degraded copies of a photo.", 1)
_IDENTITIES = flags.DEFINE_list("identities", [], "first,last: labels first..last-1.")
_MIN_IMAGES = flags.DEFINE_integer("min_images", 1, "Leave out people with fewer.", 1)
_MAX_IMAGES = flags.DEFINE_integer("max_images", 0, "First photos of each; 0 = all.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the degradations.", 0)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images at once.", 1)
flags.mark_flags_as_required(["source", "name", "weights"])


def _precompute() -> str:
    extractor = open_extractor(_BACKBONE.value, _WEIGHTS.value, taps=_TAPS.value)
    if len(_IDENTITIES.value) not in (0, 2):
        raise ValueError(
            "precompute: --identities must be first,last; got "
            f"{','.join(_IDENTITIES.value)}"
        )
    source = open_faces(
        _DATA_DIR.value,
        _SOURCE.value,
        _SPLIT.value,
        image_size=extractor.image_size,
    )
    labels = source.labels()
    if _IDENTITIES.value:
        first, last = map(int, _IDENTITIES.value)
        labels = np.where((labels >= first) & (labels < last), labels, -1)
    photos = choose_photos(
        labels, min_images=_MIN_IMAGES.value, max_images=_MAX_IMAGES.value
    )
    if not photos.size:
        raise ValueError(
            f"precompute: {_SOURCE.value} must hold people with at least "
            f"{_MIN_IMAGES.value} photos among the identities; got none; change these"
        )
    options = dict(copies=_COPIES.value, seed=_SEED.value)
    features = feature_rows(extractor, batch_size=_BATCH_SIZE.value, **options)
    rows = features(jax.device_put(extractor.variables), source.select(photos))
    origin = dict(
        source=_SOURCE.value,
        split=_SPLIT.value,
        backbone=extractor.kind,
        fingerprint=extractor.fingerprint,
        photos=len(photos),
        identities=len(np.unique(labels[photos])),
        **options,
    )
    path = write_features(
        rows,
        name=_NAME.value,
        data_dir=_DATA_DIR.value,
        sizes=extractor.sizes(),
        origin=origin,
    )
    return (
        f"{_NAME.value}: {origin['photos']} photos of {origin['identities']} people, "
        f"{_COPIES.value} degraded copies each; in {path}\n"
    )


def main(argv: list[str]) -> None:
    """Precompute what the flags name and say where it is."""
    logging.set_verbosity(logging.WARNING)
    use_compile_cache()
    try:
        if argv[1:]:
            raise ValueError(
                f"precompute: everything is given by flags; got {argv[1:]}; see --help"
            )
        sys.stdout.write(_precompute())
    except ValueError as e:
        sys.exit(f"error: {e}")


if __name__ == "__main__":
    app.run(main)
