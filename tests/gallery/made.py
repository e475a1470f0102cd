"""A gallery without a network: random features of people that are close together."""

import numpy as np

from kprpe_jax.gallery.gallery import Entry, Gallery, Model

MODEL = Model("drawn", "f" * 64, 8, (2, 2), 16, "float32")


def entries(names, *, photos=2, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for name in names:
        center = rng.normal(size=8)
        for number in range(photos):
            made.append(
                Entry(
                    name,
                    f"{name}/{number}.jpg",
                    f"{name}-{number}",
                    (center + 0.1 * rng.normal(size=8)).astype(np.float32),
                    rng.normal(size=(4, 16)).astype(np.float32),
                )
            )
    return made


def make(path, names=("ann", "bob", "cleo"), *, patches="float32", photos=2):
    model = MODEL._replace(patches=patches)
    with Gallery(path, create=model) as gallery:
        gallery.add(entries(names, photos=photos))
    return entries(names, photos=photos)
