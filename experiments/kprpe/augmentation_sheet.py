"""Draw the contact sheet of every augmentation: one a row, on synthetic faces.

    python -m experiments augmentation_sheet \
        --output docs/figures/augmentation.png

Do the keypoints stay on eyes, nose and mouth?
"""

import argparse
import pathlib
import sys

import jax
import numpy as np

from experiments import options as shared
from kprpe_jax.augmentation.photometric import OPERATIONS
from kprpe_jax.augmentation.recipe import PRESETS, Recipe, augment, make_recipe
from kprpe_jax.data.synthetic.faces import render_faces
from kprpe_jax.data.synthetic.nuisance import Severity
from kprpe_jax.report.contact_sheet import plot_contact_sheet

# Every program runs once: quick to compile rather than quick.
_QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}
_BLURS = ("box blur", "gaussian", "down-up")


def rows() -> dict[str, Recipe]:
    """Title -> recipe of each row: every augmentation alone, then the presets."""
    part = {
        "none": {},
        "flip": {"spatial": {"flip_prob": 1}},
        "rotation": {"spatial": {"rotation_prob": 1}},
        "shear": {"spatial": {"shear_prob": 1}},
        "scaling": {"spatial": {"scale_prob": 1}},
        "translation": {"spatial": {"translation_prob": 1}},
        "crop": {"occlusion": {"crop_prob": 1}},
        "cut-out": {"occlusion": {"hole_prob": 1, "holes": (12, 20)}},
    }
    for place, title in enumerate(_BLURS):
        weights = tuple(float(place == other) for other in range(3))
        part[title] = {"blur": {"prob": 1, "weights": weights}}
    for name in OPERATIONS:
        if name != "identity":
            alone = {"prob": 1, "ops": (name,), "weights": (1,), "num_ops": 1}
            part[name] = {"photometric": alone | {"spread": 9}}
    recipes = {title: make_recipe("none", **change) for title, change in part.items()}
    return recipes | {name: PRESETS[name] for name in ("kprpe", "adaface")}


def draw_sheet(path: str | pathlib.Path, *, num_identities: int, seed: int) -> None:
    """Draw the sheet.

    Args:
      path: of the PNG.
      num_identities: columns.
      seed: of the people and of the draws.
    """
    people = np.arange(num_identities, dtype=np.int32)
    easy = Severity(*[0.5] * len(Severity._fields))
    draw = jax.jit(render_faces, static_argnames="severity", compiler_options=_QUICK)
    faces = draw(seed, people, np.zeros_like(people), severity=easy)
    run = jax.jit(augment, static_argnames="recipe", compiler_options=_QUICK)
    images, points = [], []
    for recipe in rows().values():
        new, moved = run(jax.random.key(seed), faces.images, faces.keypoints, recipe)
        images.append(np.rint((np.asarray(new) + 1) * 127.5).astype(np.uint8))
        points.append(np.asarray(moved))
    plot_contact_sheet(
        np.stack(images), path, points=np.stack(points), row_titles=list(rows())
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    shared.add_picture(parser, "docs/figures/augmentation.png")
    shared.add_synthetic(parser, 8)


def run(options: argparse.Namespace) -> None:
    """Draw the sheet."""
    draw_sheet(options.output, num_identities=options.identities, seed=options.seed)
    sys.stdout.write(f"written to {options.output}\n")
