"""Pictures of a learned warp: its grid on faces, and faces of one person aligned.

    python -m experiments alignment_pictures --workdir runs/small \
        --output docs/figures

Where the run belongs to the study, the learned template and weights are drawn, too.
"""

import argparse
import pathlib
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments import options as shared
from kprpe_jax.alignment import warps
from kprpe_jax.core import mesh
from kprpe_jax.core.input_spec import BLACK, to_unit_range
from kprpe_jax.evaluation.misaligned import misalign
from kprpe_jax.report import alignment as report
from kprpe_jax.tasks import faces, joint_alignment, networks, recognition
from kprpe_jax.training.checkpoint import restore_for_eval
from kprpe_jax.training.loop import prepare_data
from kprpe_jax.training.runs import read_config
from kprpe_jax.training.state import abstract_state

_LINES = 9  # of the grid, each way
_FACES = 6


class Warped(NamedTuple):
    """Faces of one person as a network warps them.

    Attributes:
      before, after: float32 [N, H, W, 3] in [-1, 1].
      grid: float32 [N, L, L, 2], where the lines of a regular grid of the aligned face
        lie in the image, fractions.
      landmarks, aligned: float32 [N, S, 2], before and after, fractions.
    """

    before: np.ndarray
    after: np.ndarray
    grid: np.ndarray
    landmarks: np.ndarray
    aligned: np.ndarray


def warp_faces(config: ConfigDict, workdir: str, *, severity: float) -> Warped:
    """Warp misaligned faces of the first test person with a run's last state.

    The images are warped, wherever the run has its warp.

    Raises: ValueError: as `restore_for_eval`.
    """
    prepare_data(config)
    devices = mesh.make_mesh(config.mesh)
    task = joint_alignment.build(config, devices)
    state = restore_for_eval(workdir, "last", abstract_state(task, devices), config)
    source = faces.open_people(config, config.evals.aligned.split)
    rows = source.__getitems__(range(_FACES))
    images = to_unit_range(np.stack([row["image"] for row in rows]))
    points = np.stack([row["keypoints"] for row in rows])
    images, points = misalign(jax.random.key(0), images, points, severity)
    axis = np.linspace(0, 1, _LINES)
    lines = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(1, -1, 2)
    lines = jnp.tile(jnp.float32(lines), (_FACES, 1, 1))
    template = joint_alignment.make_template(config)
    model = joint_alignment.make_network(config, template, devices)
    spec = networks.input_spec(config, model)

    @jax.jit
    def run(params: Any, collections: Any):
        own = recognition.backbone_collections(collections)
        variables = {"params": params["backbone"], **own}
        inputs = spec.apply(images, points)
        warp = model.apply(variables, *inputs, method="aligned").warp
        after = warps.warp_map(warp, images, outside=BLACK)
        grid = (warp.to_input(2 * lines - 1) + 1) / 2
        return after, grid, warps.carry_keypoints(warp, points)

    after, grid, aligned = run(state.params, state.collections)
    grid = grid.reshape(_FACES, _LINES, _LINES, 2)
    return Warped(*map(np.asarray, (images, after, grid, points, aligned)))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    shared.add_workdir(parser)
    shared.add_report(parser, "reports/alignment")


def run(options: argparse.Namespace) -> None:
    """Draw the pictures of a run."""
    output = options.output
    output.mkdir(parents=True, exist_ok=True)
    config = read_config(options.workdir)
    warped = warp_faces(config, options.workdir, severity=1.0)
    report.plot_warps(*warped, output / "alignment_warps.png")
    learned = pathlib.Path(options.workdir, "template.npz")
    if learned.exists():  # of a run of the experiment `alignment`
        with np.load(learned, allow_pickle=False) as shape:
            report.plot_template(
                shape["first_template"],
                shape["template"],
                shape["weights"],
                output / "alignment_template.png",
            )
    sys.stdout.write(f"written to {output}\n")
