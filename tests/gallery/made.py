"""A gallery without a network: random features of people that are close together."""

import numpy as np

from kprpe_jax.core.features import Features
from kprpe_jax.core.input_spec import InputSpec
from kprpe_jax.gallery.gallery import Gallery
from kprpe_jax.gallery.header import GalleryEntry, GalleryHeader, NetworkSource

HEADER = GalleryHeader(
    NetworkSource("random", "f" * 64),
    "free",
    InputSpec((16, 8)),
    8,
    (2, 2),
    16,
    patches="float32",
)


def entries(names, *, photos=2, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for name in names:
        center = rng.normal(size=8)
        for number in range(photos):
            features = Features(
                (center + 0.1 * rng.normal(size=8)).astype(np.float32),
                rng.normal(size=(4, 16)).astype(np.float32),
                keypoints=rng.random((5, 2)).astype(np.float32),
            )
            made.append(
                GalleryEntry(name, f"{name}/{number}.jpg", f"{name}-{number}", features)
            )
    return made


def make(path, names=("ann", "bob", "cleo"), *, patches="float32", photos=2):
    header = HEADER._replace(patches=patches)
    with Gallery(path, create=header) as gallery:
        gallery.add(entries(names, photos=photos))
    return entries(names, photos=photos)


def names_in(path):
    """The names of a gallery's photos."""
    with Gallery(path) as gallery:
        return gallery.read().photos
