"""Draw the contact sheet of walkers: people by rows, one step and nuisances by columns.

    python -m experiments walker_sheet --output docs/figures/walkers.png

Would one call these walking people, all of a row the same, and are the joints theirs?
"""

import argparse
import functools
import pathlib
import sys

import jax
import numpy as np

from experiments import options as shared
from kprpe_jax.data.synthetic.walker_frames import WalkSeverity, render_walk
from kprpe_jax.report.contact_sheet import plot_contact_sheet
from kprpe_jax.report.gait import with_joints

_SIZE = (128, 88)
_FRAMES = 24  # one period of the gait
_OFF = WalkSeverity(*[0.0] * len(WalkSeverity._fields))
# Title -> severity, sequence, frame.
_COLUMNS = {
    **{f"frame {t}": (_OFF, 0, t) for t in (0, 4, 8, 12, 16, 20)},
    "view": (_OFF._replace(view=1.0), 1, 4),
    "view ": (_OFF._replace(view=1.0), 2, 4),
    "scale, shift": (_OFF._replace(scale=3.0, shift=3.0), 3, 4),
    "occlusion": (_OFF._replace(occlusion=3.0), 4, 4),
    "all": (WalkSeverity(), 5, 8),
    "hard": (WalkSeverity(*[2.0] * len(WalkSeverity._fields)), 6, 8),
}


def draw_sheet(path: str | pathlib.Path, *, num_identities: int, seed: int) -> None:
    """Draw the sheet; joints that are hidden are left out.

    Args:
      path: of the PNG.
      num_identities: rows.
      seed: of the people.
    """
    draw = jax.jit(functools.partial(render_walk, num_frames=_FRAMES, size=_SIZE))
    images = []
    for identity in range(num_identities):
        for severity, sequence, frame in _COLUMNS.values():
            numbers = WalkSeverity(*map(np.float32, severity))
            walk = jax.device_get(draw(seed, identity, sequence, severity=numbers))
            known = walk.joint_mask[frame]
            joints = walk.keypoints[frame][known]
            images.append(with_joints(walk.silhouettes[frame], joints))
    plot_contact_sheet(
        np.reshape(images, (num_identities, len(_COLUMNS), *_SIZE, 3)),
        path,
        row_titles=[f"person {i}" for i in range(num_identities)],
        column_titles=[title.strip() for title in _COLUMNS],
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    shared.add_picture(parser, "docs/figures/walkers.png")
    shared.add_synthetic(parser, 6)


def run(options: argparse.Namespace) -> None:
    """Draw the sheet."""
    draw_sheet(options.output, num_identities=options.identities, seed=options.seed)
    sys.stdout.write(f"written to {options.output}\n")
