"""Draw the contact sheet of synthetic faces: people by rows, nuisances by columns.

    python -m experiments synthetic_faces_sheet \
        --output docs/figures/synthetic_faces.png

Would a person call these faces, and all of a row the same person?
"""

import argparse
import pathlib
import sys

import jax
import numpy as np

from experiments import options as shared
from kprpe_jax.data.synthetic.faces import render, sample_shots
from kprpe_jax.data.synthetic.nuisance import Severity
from kprpe_jax.report.contact_sheet import plot_contact_sheet

_OFF = Severity(*[0.0] * len(Severity._fields))
# Title -> severity, or what to put on a clean shot.
_COLUMNS = {
    "clean": _OFF,
    "landmarks": _OFF,
    "pose": _OFF._replace(rotation=1.5, scale=1.5, shift=1.5, turn=1.5),
    "expression": _OFF._replace(expression=2.0),
    "light": _OFF._replace(light=1.5, background=1.0),
    "blur": {"blur": 2.5},
    "noise": {"noise": 0.1},
    "few pixels": {"resolution": 0.2},
    "crop": {"crop_x": 0.25, "crop_y": -0.2},
    "mask": {"mask": 1.0},
    "sunglasses": {"sunglasses": 1.0},
    "all": Severity(),
    "all, points": Severity(),
}


def draw_sheet(path: str | pathlib.Path, *, num_identities: int, seed: int) -> None:
    """Draw the sheet.

    Args:
      path: of the PNG.
      num_identities: rows.
      seed: of the people.
    """
    people = np.arange(num_identities, dtype=np.int32)
    shots = jax.jit(sample_shots, static_argnames="layout")
    draw = jax.jit(render)
    columns = []
    for place, kind in enumerate(_COLUMNS.values()):
        severity = kind if isinstance(kind, Severity) else _OFF
        # The column with points repeats the one to its left.
        index = np.full_like(people, place - (place == len(_COLUMNS) - 1))
        shot = shots(seed, people, index, severity=severity, layout="aligned")
        if isinstance(kind, dict):
            ones = np.ones(num_identities, np.float32)
            shot = shot._replace(**{name: value * ones for name, value in kind.items()})
        columns.append(jax.device_get(draw(seed, people, shot)))
    points = np.stack([c.landmarks for c in columns], 1)
    with_points = [title in ("landmarks", "all, points") for title in _COLUMNS]
    plot_contact_sheet(
        np.stack([c.images for c in columns], 1),
        path,
        points=np.where(np.array(with_points)[:, None, None], points, np.nan),
        row_titles=[f"person {i}" for i in people],
        column_titles=list(_COLUMNS),
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    shared.add_picture(parser, "docs/figures/synthetic_faces.png")
    shared.add_synthetic(parser, 8)


def run(options: argparse.Namespace) -> None:
    """Draw the sheet."""
    draw_sheet(options.output, num_identities=options.identities, seed=options.seed)
    sys.stdout.write(f"written to {options.output}\n")
